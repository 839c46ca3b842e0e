// Chats and answers.

function turnsBlock(turns, prompt) {
  const all = prompt === undefined ? turns : [...turns, ["user", prompt]];
  return el(
    "div.turns",
    {},
    all.map(([role, text]) => el("div.turn", {}, el("b", {}, role), el("div.text", {}, text))),
  );
}

// A reasoning step, to its end or to what begins next; or an output.
const OPENING = String.raw`<\|(?:Reasoning_step|Output)\|>`;
const BLOCKS = new RegExp(
  [
    String.raw`<\|Reasoning_step\|>[\s\S]*?(?:<\|/Reasoning_step\|>|(?=${OPENING})|$)`,
    String.raw`<\|Output\|>[\s\S]*?(?:<\|/Output\|>|$)`,
  ].join("|"),
  "g",
);

/** Steps of a whole answer; a plain one is one step. */
function splitSteps(text) {
  const found = text.match(BLOCKS);
  return found && found.join("").replace(/\s/g, "") === text.replace(/\s/g, "") ? found : [text];
}

function answerBlock(text) {
  return el(
    "div.answer",
    {},
    splitSteps(text).map((step) => stepBlock(step)),
  );
}
