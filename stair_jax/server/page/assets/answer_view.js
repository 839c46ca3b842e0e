// An answer of the model as it is shown: steps folded, what the user is told, candidates, its cost.
import { candidatesView } from "./candidates.js";
import { make, setText } from "./dom.js";

const NOTES = {
  length: "The answer was cut off: it reached the most tokens, or the end of the context.",
  stopped: "Stopped.",
};

export class AnswerView {
  #steps = make("div", { class: "steps" });
  #content = make("p", { class: "text content" });
  #search = make("div");
  #note = make("p", { class: "note", hidden: "" });
  #cost = make("span", { class: "cost" });
  #areOpen;

  // An answer that begins; its steps are unfolded where `areOpen`.
  constructor(model, areOpen) {
    this.#areOpen = areOpen;
    this.actions = make("div", { class: "actions" }, this.#cost);
    this.element = make("article",
      { class: "answer", "aria-label": `Answer of ${model}`, "aria-busy": "true" },
      this.#steps, this.#content, this.#note, this.#search, this.actions);
  }

  // Shows what is known of the answer by now; what is shown already stays as the user left it.
  update(answer) {
    const { steps, content } = answer.parts;
    steps.forEach((step, index) => this.#showStep(step, index));
    setText(this.#content, content);
    setText(this.#cost, costLine(answer));
    if (answer.isEnded) this.#end(answer, content);
  }

  fail(message) {
    this.#note.hidden = false;
    setText(this.#note, message);
    this.element.setAttribute("aria-busy", "false");
  }

  #showStep({ title, text }, index) {
    const known = this.#steps.children[index] ?? this.#addStep();
    const [summary, body] = known.children;
    setText(summary, title || `Step ${index + 1}`);
    setText(body, text);
  }

  #addStep() {
    const step = make("details", this.#areOpen ? { open: "" } : {},
      make("summary"), make("p", { class: "text" }));
    this.#steps.append(step);
    return step;
  }

  #end(answer, content) {
    this.element.setAttribute("aria-busy", "false");
    if (answer.search) this.#search.replaceChildren(candidatesView(answer.search));
    const note = NOTES[answer.finish] ?? "";
    const left = content ? "" : " It has no final answer, so this turn is left out of what follows.";
    if (note || left) this.fail((note + left).trim());
  }
}

// What an answer has cost so far, and in the end.
function costLine(answer) {
  const { usage, seconds, secondsToFirst } = answer;
  const parts = [`${seconds.toFixed(1)} s`];
  if (answer.isEnded && usage) parts.unshift(...tokens(usage, seconds));
  if (answer.isEnded && secondsToFirst !== null) {
    parts.push(`first text after ${secondsToFirst.toFixed(1)} s`);
  }
  return parts.join(" · ");
}

function tokens(usage, seconds) {
  const { prompt_tokens: read, completion_tokens: written } = usage;
  const kept = usage.completion_tokens_details?.kept_tokens ?? written;
  return [
    `${read} tokens read`,
    `${written} written` + (kept === written ? "" : `, ${kept} of them kept`),
    `${Math.round(written / Math.max(seconds, 0.001))} a second`,
  ];
}
