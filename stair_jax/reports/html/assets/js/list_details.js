// A list on the left and what is chosen of it on the right.

/**
 * `key`: under which the address keeps the chosen row; `show(row)`: promise of its details, which
 * may have a `close`; `above`: what stands above the list. Others as of `Grid` and `Filters`.
 */
function listWithDetails({ label, key, columns, fields, rows, show, above = "" }) {
  const panel = el("aside.panel", { "aria-label": "Details", tabindex: 0 });
  let chosen = Number(here().query[key] ?? NaN);
  let closing = [];
  const close = () => closing.splice(0).forEach((node) => node.close());
  const choose = async (row) => {
    chosen = row;
    remember({ [key]: row });
    const details = await show(row).catch((error) => el("p.note", {}, error.message));
    if (chosen !== row) return;
    close();
    panel.replaceChildren(details);
    closing = [...details.querySelectorAll("section")].filter((node) => node.close);
    panel.scrollTop = 0;
  };
  const grid = new Grid({ columns, label, onselect: choose, onopen: choose });
  const filters = new Filters(fields, rows, (kept) => grid.show(kept));
  grid.show(filters.kept(), rows.includes(chosen) ? chosen : undefined);
  return {
    filters,
    node: el("div.fill", {}, filters.node, above, el("div.split", {}, grid.node, panel)),
    opened: () => {
      if (grid.rows.length) choose(grid.chosen() ?? grid.rows[0]);
      grid.enter(grid.chosen());
    },
    close: () => {
      close();
      grid.close();
    },
  };
}

/** A field that shows the page anew, such as for another model. */
function chooser(key, label, names, chosen) {
  const change = (event) => {
    remember({ [key]: event.target.value });
    showPlace();
  };
  const options = names.map((name) =>
    el("option", { value: name, selected: name === chosen }, name),
  );
  return el(
    "label",
    {},
    el("span", {}, label),
    el("select", { name: key, onchange: change }, options),
  );
}

/** Links of which one is where the reader is. */
function tabs(entries, current) {
  return el(
    "nav.tabs",
    {},
    entries.map(([name, place]) =>
      el("a", { href: hrefOf(place), "aria-current": name === current ? "page" : null }, name),
    ),
  );
}
