// Fields that choose rows of a list; what they say is kept in the address.

/**
 * A field is {key, label, options: [[value, label]], keeps: (row, value) => boolean}; without
 * options it is a text. An empty value keeps all rows.
 */
class Filters {
  constructor(fields, rows, onchange) {
    Object.assign(this, { fields, rows, onchange });
    const { query } = here();
    this.values = Object.fromEntries(fields.map(({ key }) => [key, query[key] ?? ""]));
    this.count = el("output.count");
    this.node = el(
      "form.filters",
      { role: "search", onsubmit: (event) => event.preventDefault() },
      fields.map((field) => el("label", {}, el("span", {}, field.label), this.input(field))),
      this.count,
    );
  }

  input(field) {
    const value = this.values[field.key];
    const changed = (event) => this.change(field.key, event.target.value);
    if (!field.options) {
      return el("input", { type: "search", value, oninput: changed, name: field.key, spellcheck: "false" });
    }
    const options = [["", "all"], ...field.options];
    return el(
      "select",
      { onchange: changed, name: field.key },
      options.map(([name, label]) => el("option", { value: name, selected: name === value }, label)),
    );
  }

  change(key, value) {
    this.values[key] = value;
    remember({ [key]: value });
    this.onchange(this.kept());
  }

  /** The rows that all fields keep. */
  kept() {
    const set = this.fields.filter(({ key }) => this.values[key] !== "");
    const found = this.rows.filter((row) => set.every(({ key, keeps }) => keeps(row, this.values[key])));
    this.count.textContent = `${whole(found.length)} of ${whole(this.rows.length)}`;
    return found;
  }
}

/** Options of the values that a column has, with how often. */
function optionsOf(values, labelOf = (value) => value) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].map(([value, count]) => [String(value), `${labelOf(value)} (${whole(count)})`]);
}

function hasText(text, wanted) {
  return text.toLowerCase().includes(wanted.toLowerCase());
}
