// Tables: small ones as they are, and grids of many rows with columns that sort.

/** A small table; a column is {name, of(row): cell, number, title, sort(row): figure or text}. */
function table(columns, rows, { caption, classes = "" } = {}) {
  const body = el("tbody");
  const fill = (order) =>
    body.replaceChildren(
      ...order.map((row) =>
        el(
          "tr",
          {},
          columns.map((column) => el(`td${column.number ? ".number" : ""}`, {}, column.of(row))),
        ),
      ),
    );
  const head = sortingHead(columns, "th", (column, isDown) =>
    fill(sorted(rows, column.sort, isDown)),
  );
  fill(rows);
  return el(
    `table${classes}`,
    {},
    caption && el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head)),
    body,
  );
}

function sortingHead(columns, kind, onsort) {
  const state = { column: null, isDown: false };
  const cells = columns.map((column) => {
    const cell = el(`${kind}${column.number ? ".number" : ""}`, {
      title: column.title,
      scope: kind === "th" && "col",
    });
    if (!column.sort) cell.append(childOf(column.name));
    else
      cell.append(
        button(column.name, () => turn(column), {
          "aria-label": column.name ? null : column.title,
        }),
      );
    return cell;
  });
  const turn = (column) => {
    state.isDown = state.column === column ? !state.isDown : Boolean(column.number);
    state.column = column;
    cells.forEach((cell, index) => {
      const order = columns[index] === column ? (state.isDown ? "descending" : "ascending") : null;
      if (order) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    });
    onsort(column, state.isDown);
  };
  return cells;
}

/** Rows by a key; those without one come last either way. */
function sorted(rows, key, isDown) {
  const sign = isDown ? -1 : 1;
  const keyed = Array.from(rows, (row) => [key(row), row]);
  const isThere = ([value]) => value !== null && value !== undefined && !Number.isNaN(value);
  const compare = ([a], [b]) => sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  const there = keyed.filter(isThere).sort(compare);
  return [...there, ...keyed.filter((one) => !isThere(one))].map(([, row]) => row);
}

/** A windowed table. `columns` as of `table`, with `width`, a track of a CSS grid. */
class Grid {
  constructor({ columns, label, onselect = () => {}, onopen = () => {} }) {
    this.columns = columns;
    this.rows = [];
    this.order = null;
    const tracks = columns.map(({ width = "5.2em" }) => width).join(" ");
    this.list = new Windowed({
      height: 26,
      label,
      make: (place) => this.line(this.rows[place], tracks),
      onselect: (place) => onselect(this.rows[place]),
      onopen: (place) => onopen(this.rows[place]),
    });
    this.head = el(
      "div.gridhead",
      {},
      sortingHead(columns, "span", (column, isDown) => {
        this.order = [column.sort, isDown];
        this.show(this.rows);
      }),
    );
    this.head.style.gridTemplateColumns = tracks;
    this.node = el("div.grid", {}, this.head, this.list.node);
    this.list.node.addEventListener(
      "scroll",
      () => (this.head.scrollLeft = this.list.node.scrollLeft),
      { passive: true },
    );
    this.sizes = new ResizeObserver(() => this.widen());
    this.sizes.observe(this.head);
  }

  /** Where the columns need more than there is, lines are as wide as the head, and scroll. */
  widen() {
    this.list.space.style.minWidth = "";
    this.list.space.style.minWidth = `${this.head.scrollWidth}px`;
  }

  line(row, tracks) {
    const cells = this.columns.map(({ of, number }) =>
      el(`span${number ? ".number" : ""}`, {}, of(row)),
    );
    const line = el("div.line", { role: "option" }, cells);
    line.style.gridTemplateColumns = tracks;
    return line;
  }

  show(rows, chosen = this.chosen()) {
    this.rows = this.order ? sorted(rows, ...this.order) : Array.from(rows);
    this.list.show(this.rows.length, this.rows.indexOf(chosen));
    if (this.list.selected >= 0) this.list.reveal(this.list.selected);
  }

  /** Chooses a row, or the first one, for the keys to begin at. */
  enter(row) {
    this.show(this.rows, this.rows.includes(row) ? row : this.rows[0]);
    this.list.node.focus({ preventScroll: true });
  }

  chosen() {
    return this.rows[this.list.selected];
  }

  close() {
    this.sizes.disconnect();
    this.list.close();
  }
}
