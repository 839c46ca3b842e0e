// The blocks of data: in the page as base64 of gzip of JSON, or served beside it.

const MOST_KEPT = 24; // blocks with texts
const blocks = new Map();

/** The value of a block; it is read once. Throws an Error in words for readers. */
function read(name) {
  const known = blocks.get(name);
  const found = known ?? (blockHere(name) ? unpacked(blockHere(name)) : served(name));
  blocks.delete(name);
  blocks.set(name, found);
  found.catch(() => blocks.delete(name));
  forgetOldest();
  return found;
}

function blockHere(name) {
  return document.getElementById(`data:${name}`);
}

function forgetOldest() {
  const numbered = [...blocks.keys()].filter((name) => name.split("/").length === 3);
  for (const name of numbered.slice(0, Math.max(0, numbered.length - MOST_KEPT)))
    blocks.delete(name);
}

/** Bytes of base64; by a loop, which is ten times as fast as Uint8Array.from, in older browsers. */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text.trim());
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
  return bytes;
}

async function unpacked(node) {
  const stream = new Blob([bytesOf(node.textContent)])
    .stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function served(name) {
  if (!location.protocol.startsWith("http")) throw new Error(`This file does not have ${name}.`);
  const answer = await fetch(`data/${name}`);
  if (!answer.ok)
    throw new Error(`${name} could not be read: ${(await answer.text()).slice(0, 500)}`);
  return answer.json();
}

/** Rows of a list of columns: their numbers. */
function rowsOf(columns, key) {
  return Array.from(columns[key].keys());
}

/** The texts of a row of a list; null: they are not in this file. */
async function textsOf(list, name, row) {
  const block = list.block[row];
  if (block === null || block === undefined) return null;
  return (await read(`${name}/${block}`))[list.slot[row]];
}

const NOT_HERE =
  "The texts of this one are not in this file. Serve the run with `stair-jax view` to read all.";
