// What a structured answer consists of, read as tolerantly as the server reads it.

const OPEN = "<|Reasoning_step|>", OUTPUT = "<|Output|>";
const TAG = /<\|\/?(?:Reasoning_step|Output)\|>/g;

// {reasoning, content} of text that a server with --reasoning raw gives out; of other text, itself.
export function splitRaw(reasoning, content) {
  if (!content.includes(OPEN) && !content.includes(OUTPUT)) return { reasoning, content };
  const place = content.lastIndexOf(OUTPUT);
  const before = place < 0 ? content : content.slice(0, place);
  const output = place < 0 ? "" : content.slice(place).replaceAll(TAG, "");
  const final = output.trim().replace(/^Final Answer:\s*/, "");
  return { reasoning: reasoning + before, content: final };
}

// [{title, text}] of reasoning: blocks between tags, or begun by lines "Title: ...".
export function splitSteps(reasoning) {
  const blocks = reasoning.includes(OPEN)
    ? reasoning.split(OPEN).map((block) => block.replaceAll(TAG, ""))
    : reasoning.split(/^(?=Title:)/m);
  return blocks.map((block) => block.trim()).filter(Boolean).map(step);
}

function step(block) {
  if (!block.startsWith("Title:")) return { title: "", text: block };
  const [first] = block.split("\n", 1);
  return { title: first.slice("Title:".length).trim(), text: block.slice(first.length).trim() };
}
