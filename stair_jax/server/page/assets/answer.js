// An answer as its chunks come, without anything of how it is shown.
import { splitRaw, splitSteps } from "./steps.js";

export class Answer {
  #reasoning = "";
  #content = "";
  #started = performance.now();
  #first = null;
  #ended = null;
  finish = null;
  usage = null;
  search = null;

  add(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const [choice] = chunk.choices ?? [];
    if (!choice) return;
    const { reasoning = "", reasoning_content = "", content = "" } = choice.delta ?? {};
    this.#reasoning += reasoning || reasoning_content || "";
    this.#content += content || "";
    if (this.#first === null && (this.#reasoning || this.#content)) this.#first = performance.now();
    this.finish = choice.finish_reason ?? this.finish;
    this.search = choice.search ?? this.search;
  }

  end(finish = this.finish) {
    this.finish = finish;
    this.#ended = performance.now();
  }

  get isEnded() {
    return this.#ended !== null;
  }

  // {steps, content}: reasoning steps with title and text, and what the user is told.
  get parts() {
    const { reasoning, content } = splitRaw(this.#reasoning, this.#content);
    return { steps: splitSteps(reasoning), content };
  }

  get seconds() {
    return ((this.#ended ?? performance.now()) - this.#started) / 1000;
  }

  get secondsToFirst() {
    return this.#first === null ? null : (this.#first - this.#started) / 1000;
  }
}
