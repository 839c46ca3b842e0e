// Chats and answers.

function turnsBlock(turns, prompt) {
  const all = prompt === undefined ? turns : [...turns, ["user", prompt]];
  return el(
    "div.turns",
    {},
    all.map(([role, text]) => el("div.turn", {}, el("b", {}, role), el("div.text", {}, text))),
  );
}

const BLOCKS = /<\|Reasoning_step\|>[\s\S]*?(?:<\|\/Reasoning_step\|>|(?=<\|Reasoning_step\|>|<\|Output\|>)|$)|<\|Output\|>[\s\S]*?(?:<\|\/Output\|>|$)/g;

/** Steps of a whole answer; a plain one is one step. */
function splitSteps(text) {
  const found = text.match(BLOCKS);
  return found && found.join("").replace(/\s/g, "") === text.replace(/\s/g, "") ? found : [text];
}

function answerBlock(text) {
  return el("div.answer", {}, splitSteps(text).map((step) => stepBlock(step)));
}
