// The list of models: each by itself, then with the searches that the server offers.
import { isReady, listModels } from "./api.js";
import { make } from "./dom.js";

const WAIT = 1000; // ms between two looks whether the server is ready

// Whether a name asks for a search: the server lists these as NAME:SEARCH.
export function isSearch(model) {
  return model.includes(":");
}

export class Models {
  #select;

  constructor(select) {
    this.#select = select;
  }

  get chosen() {
    return this.#select.value;
  }

  // Fills the list; raises a ServerError as `listModels` does.
  async load(key) {
    const names = await listModels(key);
    const known = this.chosen;
    const groups = [["Models", names.filter((name) => !isSearch(name))],
      ["With a search", names.filter(isSearch)]];
    this.#select.replaceChildren(...groups.filter(([, found]) => found.length).map(group));
    if (names.includes(known)) this.#select.value = known;
    this.#select.disabled = names.length === 0;
  }
}

function group([label, names]) {
  const options = names.map((name) => make("option", { value: name }, name));
  return make("optgroup", { label }, ...options);
}

// Returns when the server has loaded its model.
export async function waitUntilReady() {
  while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, WAIT));
}
