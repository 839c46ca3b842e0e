// The candidates of a search, the chosen one first, with the reward model's score of each step.
import { make } from "./dom.js";
import { splitRaw, splitSteps } from "./steps.js";

const HEAD = ["Candidate", "Score", "Scores of its steps", "Text"];

export function candidatesView({ candidates, method, tokens }) {
  const numbered = candidates.map((candidate, index) => ({ ...candidate, number: index + 1 }));
  numbered.sort(byRank);
  const share = shareOf(numbered);
  const head = make("tr", {}, ...HEAD.map((title) => make("th", { scope: "col" }, title)));
  const rows = numbered.map((candidate, place) => row(candidate, place === 0, share));
  return make("details", { class: "candidates" },
    make("summary", {}, `${candidates.length} candidates of ${method}, ${tokens} tokens`),
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function byRank(one, other) {
  const score = (candidate) => candidate.score ?? -Infinity;
  return Boolean(other.chosen) - Boolean(one.chosen)
    || score(other) - score(one) || one.number - other.number;
}

function row(candidate, isChosen, share) {
  return make("tr", isChosen ? { class: "chosen" } : {},
    make("th", { scope: "row" }, isChosen ? `${candidate.number}, chosen` : `${candidate.number}`),
    make("td", { class: "number" }, shown(candidate.score)),
    make("td", {}, stepScores(candidate, share)),
    make("td", {}, text(candidate)));
}

function stepScores({ text, step_scores = [] }, share) {
  const steps = splitSteps(splitRaw("", text).reasoning);
  return make("ol", { class: "scores" }, ...step_scores.map((score, index) => {
    const title = steps[index]?.title || (index < steps.length ? `Step ${index + 1}` : "Answer");
    const item = make("li", { title }, shown(score));
    item.style.setProperty("--share", share(score));
    return item;
  }));
}

function text(candidate) {
  const { reasoning, content } = splitRaw("", candidate.text);
  const steps = splitSteps(reasoning);
  const whole = steps.map(({ title, text }) => [title, text].filter(Boolean).join("\n"));
  const summary = make("summary", {}, content || steps.at(-1)?.title || "(no answer)");
  if (!steps.length) return make("p", { class: "text" }, content);
  return make("details", {}, summary, make("p", { class: "text" }, whole.join("\n\n")));
}

// How far each score lies between the least and the greatest of them, in percent.
function shareOf(candidates) {
  const scores = candidates.flatMap(({ step_scores = [] }) => step_scores).filter(isKnown);
  const least = scores.reduce((a, b) => Math.min(a, b), Infinity);
  const range = scores.reduce((a, b) => Math.max(a, b), -Infinity) - least;
  return (score) => (isKnown(score) && range > 0 ? `${(100 * (score - least)) / range}%` : "0%");
}

function isKnown(score) {
  return typeof score === "number";
}

function shown(score) {
  return isKnown(score) ? score.toFixed(3) : "none";
}
