// The settings of the page: what a chat is asked with, and how it looks.

const NUMBERS = ["temperature", "top_p", "max_completion_tokens", "seed"];
const PLACE = "stair_jax.settings", KEY = "stair_jax.key";

export class Settings {
  #dialog;
  #form;

  constructor(dialog, onClose) {
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#load();
    this.#apply();
    this.#form.addEventListener("input", () => {
      this.#apply();
      this.#save();
    });
    dialog.addEventListener("close", onClose);
  }

  // Opens the dialog, at one of its fields if that is named.
  open(field) {
    if (!this.#dialog.open) this.#dialog.showModal();
    if (field) this.#form.elements[field].focus();
  }

  get key() {
    return this.#value("key");
  }

  get areStepsOpen() {
    return this.#value("steps") === "open";
  }

  get system() {
    return this.#value("system");
  }

  // Fields of a request: those that are set. What is no number of its range is left to the server.
  get fields() {
    const known = NUMBERS.map((name) => [name, this.#form.elements[name]]);
    const set = known.filter(([, field]) => field.value !== "");
    return Object.fromEntries(set.map(([name, field]) => [name, field.valueAsNumber]));
  }

  #value(name) {
    return this.#form.elements[name].value.trim();
  }

  #apply() {
    const { dataset } = document.documentElement;
    dataset.theme = this.#value("theme");
    dataset.steps = this.#value("steps");
  }

  #load() {
    const { key = "", ...others } = { ...stored(localStorage, PLACE), ...stored(sessionStorage, KEY) };
    for (const [name, value] of Object.entries({ key, ...others })) {
      if (this.#form.elements[name]) this.#form.elements[name].value = value;
    }
  }

  #save() {
    const { key, ...others } = Object.fromEntries(new FormData(this.#form));
    store(localStorage, PLACE, others);
    store(sessionStorage, KEY, { key });
  }
}

// A browser may refuse to store anything: then settings last as long as the page.
function stored(storage, place) {
  try {
    return JSON.parse(storage.getItem(place)) ?? {};
  } catch {
    return {};
  }
}

function store(storage, place, values) {
  try {
    storage.setItem(place, JSON.stringify(values));
  } catch {
    return;
  }
}
