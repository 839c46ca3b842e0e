// Fields that choose rows of a list; what they say is kept in the address.

/**
 * A field is {key, label, options: [[value, label]], keeps: (row, value) => boolean}; without
 * options it is a text. An empty value keeps all rows.
 */
class Filters {
  constructor(fields, rows, onchange) {
    Object.assign(this, { fields, rows, onchange });
    const { query } = here();
    const known = ({ key, options }) =>
      !options || options.some(([value]) => value === query[key]) ? (query[key] ?? "") : "";
    this.values = Object.fromEntries(fields.map((field) => [field.key, known(field)]));
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
      return el("input", {
        type: "search",
        value,
        oninput: changed,
        name: field.key,
        spellcheck: "false",
      });
    }
    const options = [["", "all"], ...field.options];
    return el(
      "select",
      { onchange: changed, name: field.key },
      options.map(([name, label]) =>
        el("option", { value: name, selected: name === value }, label),
      ),
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
    const found = this.rows.filter((row) =>
      set.every(({ key, keeps }) => keeps(row, this.values[key])),
    );
    this.count.textContent = `${whole(found.length)} of ${whole(this.rows.length)}`;
    return found;
  }
}

/** A text that may be empty, as it stands in a list of choices. */
function named(text) {
  return text || "none";
}

/** A field for a text of rows, with how often each is there; none where all have the same. */
function choiceField(key, label, rows, of) {
  const counts = new Map();
  for (const row of rows) counts.set(named(of(row)), (counts.get(named(of(row))) ?? 0) + 1);
  if (counts.size < 2) return [];
  const options = [...counts].map(([value, count]) => [value, `${value} (${whole(count)})`]);
  return [{ key, label, options, keeps: (row, value) => named(of(row)) === value }];
}

/** A field for what a row is or is not. */
function switchField(key, label, of, yes = "yes", no = "no") {
  const options = [
    ["yes", yes],
    ["no", no],
  ];
  return { key, label, options, keeps: (row, value) => Boolean(of(row)) === (value === "yes") };
}

/** A field for what one of several texts of a row has in it. */
function textField(label, ...texts) {
  const keeps = (row, wanted) => texts.some((of) => hasText(of(row), wanted));
  return { key: "q", label, keeps };
}

function hasText(text, wanted) {
  return text.toLowerCase().includes(wanted.toLowerCase());
}
