// What differs between two texts, word by word.

const MOST_CELLS = 4_000_000; // of the table of common parts

function wordsOf(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

/** Two lists of [text, is it in this side alone]. */
function diffOf(left, right) {
  const [a, b] = [wordsOf(left), wordsOf(right)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  const most = Math.min(a.length, b.length) - start;
  while (end < most && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const inner = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const [ours, theirs] = commonOf(...inner);
  const marked = (words, common) => words.map((word, index) => [word, !common[index]]);
  const same = (words) => words.map((word) => [word, false]);
  const around = (middle) =>
    joined([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
  return [around(marked(inner[0], ours)), around(marked(inner[1], theirs))];
}

/** Of each word whether it is in the longest common subsequence. */
function commonOf(a, b) {
  const found = [new Uint8Array(a.length), new Uint8Array(b.length)];
  const width = b.length + 1;
  if ((a.length + 1) * width > MOST_CELLS) return found;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const [down, right] = [table[(i + 1) * width + j], table[i * width + j + 1]];
      table[i * width + j] =
        a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(down, right);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) found[0][i++] = found[1][j++] = 1;
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return found;
}

function joined(parts) {
  const found = [];
  for (const [text, isOwn] of parts) {
    const last = found.at(-1);
    if (last && last[1] === isOwn) last[0] += text;
    else found.push([text, isOwn]);
  }
  return found;
}

/** A side of a diff as elements; `kind`: the class of what it has alone. */
function diffNodes(parts, kind) {
  return parts.map(([text, isOwn]) => (isOwn ? el(`mark.${kind}`, {}, text) : visible(text)));
}
