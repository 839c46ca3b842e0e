// A chat: its turns, what is asked of the server for the next one, and the elements that show them.
import { Answer } from "./answer.js";
import { AnswerView } from "./answer_view.js";
import { streamChat } from "./api.js";
import { button, make } from "./dom.js";
import { isSearch } from "./models.js";

export class Chat {
  #place;
  #settings;
  #edit;
  #askAgain;
  #turns = []; // {text, content, elements}; the content is null without an answer
  #running = null; // of the answer that is under way

  // Turns are shown at the end of `place`. A turn that is to be written or asked anew is left out,
  // and its text given to `edit` or `askAgain`.
  constructor(place, settings, { edit, askAgain }) {
    this.#place = place;
    this.#settings = settings;
    this.#edit = edit;
    this.#askAgain = askAgain;
  }

  get isAnswering() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort();
  }

  // Leaves out the turns from one on: all of them, by default.
  cut(from = 0) {
    for (const turn of this.#turns.splice(from)) turn.elements.forEach((element) => element.remove());
  }

  // Asks the next turn, and shows its answer while it comes; raises a ServerError where there is none.
  async ask(text, model) {
    const turn = { text, content: null, elements: [] };
    const messages = [...this.#messages(), { role: "user", content: text }];
    this.#turns.push(turn);
    const view = new AnswerView(model, this.#settings.areStepsOpen);
    const asked = this.#askedView(turn);
    turn.elements = [asked, view.element];
    this.#place.append(...turn.elements);
    asked.scrollIntoView({ block: "start" });
    await this.#answer(turn, view, { model, messages, ...this.#settings.fields });
  }

  #messages() {
    const system = this.#settings.system;
    const answered = this.#turns.filter((turn) => turn.content);
    return [
      ...(system ? [{ role: "system", content: system }] : []),
      ...answered.flatMap(({ text, content }) => [
        { role: "user", content: text }, { role: "assistant", content }]),
    ];
  }

  async #answer(turn, view, body) {
    const answer = new Answer();
    const painter = new Painter(this.#place, () => view.update(answer));
    this.#running = new AbortController();
    const search = isSearch(body.model) ? { search: { details: true } } : {};
    const whole = { ...body, ...search, stream: true, stream_options: { include_usage: true } };
    try {
      const chunks = streamChat(whole, this.#settings.key, this.#running.signal);
      for await (const chunk of chunks) answer.add(chunk);
      answer.end();
    } catch (error) {
      answer.end(error.name === "AbortError" ? "stopped" : "failed");
      if (answer.finish === "failed") throw error;
    } finally {
      this.#running = null;
      painter.end();
      turn.content = answer.finish === "failed" ? null : answer.parts.content;
      this.#addActions(turn, view);
      if (answer.finish === "failed") view.fail("There is no answer.");
    }
  }

  #askedView(turn) {
    const edit = button("Edit", () => this.#redo(turn, this.#edit));
    return make("article", { class: "asked", "aria-label": "You" },
      make("p", { class: "text" }, turn.text), make("div", { class: "actions" }, edit));
  }

  #addActions(turn, view) {
    // Browsers have a clipboard for pages of this machine and of https alone.
    if (turn.content && navigator.clipboard) {
      view.actions.append(button("Copy", () => navigator.clipboard.writeText(turn.content)));
    }
    view.actions.append(button("Again", () => this.#redo(turn, this.#askAgain)));
  }

  // Leaves out a turn and those after it, and hands on its text.
  #redo(turn, next) {
    if (this.isAnswering) return;
    this.cut(this.#turns.indexOf(turn));
    next(turn.text);
  }
}

// Paints at most once a frame, and keeps the end in sight where it was.
class Painter {
  #place;
  #show;
  #frame;

  constructor(place, show) {
    this.#place = place;
    this.#show = show;
    this.#next();
  }

  end() {
    cancelAnimationFrame(this.#frame);
    this.#paint();
  }

  #next() {
    this.#frame = requestAnimationFrame(() => {
      this.#paint();
      this.#next();
    });
  }

  #paint() {
    const place = this.#place;
    const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
    this.#show();
    if (isAtEnd) place.scrollTop = place.scrollHeight;
  }
}
