// Texts of steps: tags apart from what is said.

const STEP =
  /^\s*<\|Reasoning_step\|>(?:Title: *([^\n]*)\n?)?([\s\S]*?)(?:<\|\/Reasoning_step\|>)?\s*$/;
const OUTPUT = /^\s*<\|Output\|>(?:Final Answer: *)?([\s\S]*?)(?:<\|\/Output\|>)?\s*$/;
const TAG = /<\|\/?(?:Reasoning_step|Output)\|>/;

/** {kind, title, body} of a step; a text with tags elsewhere is shown as it is. */
function stepOf(text) {
  const output = OUTPUT.exec(text);
  if (output && !TAG.test(output[1]))
    return { kind: "output", title: "Final answer", body: output[1].trim() };
  const step = STEP.exec(text);
  if (step && !TAG.test(`${step[1]}${step[2]}`))
    return { kind: "step", title: step[1] ?? "", body: step[2].trim() };
  return { kind: "raw", title: "", body: text };
}

/** A step in one line. */
function shortStep(text, most = 160) {
  const { kind, title, body } = stepOf(text);
  const line = (kind === "step" && title ? `${title}: ${body}` : body).replace(/\s+/g, " ").trim();
  const said = kind === "output" ? `\u21d2 ${line}` : line;
  return said.length > most ? `${said.slice(0, most - 1)}\u2026` : said;
}

/** A step without its tags, for a comparison; as it is where they stand elsewhere. */
function plainStep(text) {
  const { kind, title, body } = stepOf(text);
  return kind === "raw" ? body.trim() : [title, body].filter(Boolean).join("\n");
}

function stepBlock(text, isRaw = false) {
  const { kind, title, body } = isRaw ? { kind: "raw", title: "", body: text } : stepOf(text);
  return el(
    `div.step.${kind}`,
    {},
    title && el("div.title", {}, title),
    el("div.text", {}, body === "" ? el("i", {}, "empty") : body),
  );
}
