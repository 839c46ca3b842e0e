// A tree as an outline: a line a node, of which only those in sight are elements.

const INDENT = 14; // pixels a depth
const MOST_INDENT = 24; // depths from which on lines move no further to the right

class TreeOutline {
  /** `onselect` is told of the node that the reader chooses. */
  constructor(tree, onselect) {
    Object.assign(this, { tree, onselect, selected: 0, found: new Set(), pair: null });
    this.list = new Windowed({
      height: 24,
      role: "tree",
      label: "Search tree, a line a node",
      make: (place) => this.line(this.order[place]),
      onselect: (place) => this.select(this.order[place]),
    });
    this.list.node.addEventListener("keydown", (event) => this.key(event), { capture: true });
    const heads = ["", "Visits", "Value", "Reward", "H", "S"];
    const head = heads.map((name) =>
      el(`span${name ? ".number" : ""}`, { title: OUTLINE_TITLES[name] }, name),
    );
    this.node = el("div.grid.outline", {}, el("div.gridhead", {}, head), this.list.node);
    this.relayout();
  }

  relayout() {
    this.order = this.tree.order();
    this.places = new Map(this.order.map((node, place) => [node, place]));
    this.list.show(this.order.length, this.places.get(this.selected) ?? 0);
  }

  draw() {
    this.list.draw();
  }

  select(node, isTold = true) {
    this.selected = node;
    if (!this.tree.isShown(node)) {
      this.tree.unfoldTo(node);
      this.relayout();
    }
    this.list.select(this.places.get(node), false);
    if (isTold) this.onselect(node);
  }

  fold(node) {
    if (!this.tree.childCount(node)) return;
    this.tree.folded[node] ^= 1;
    this.relayout();
  }

  /** Left and right as in outlines everywhere: they fold, then move. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tree, selected } = this;
    const isFolded = tree.folded[selected];
    if (event.key === "ArrowRight" && !isFolded)
      this.select(tree.children(selected)[0] ?? selected);
    else if (event.key === "ArrowLeft" && (isFolded || !tree.childCount(selected))) {
      this.select(Math.max(0, tree.parent[selected]));
    } else if (["ArrowLeft", "ArrowRight", " "].includes(event.key)) this.fold(selected);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  line(node) {
    const { tree } = this;
    const { value, visits, reward, helpfulness, safety, terminal } = tree.nodes;
    const indent = el("span.indent");
    indent.style.width = `${Math.min(tree.depth[node], MOST_INDENT) * INDENT}px`;
    const line = el(
      `div.line${this.found.has(node) ? ".found" : ""}`,
      {
        role: "treeitem",
        "aria-level": tree.depth[node] + 1,
        "aria-expanded": this.expanded(node),
      },
      el(
        "span.what",
        {},
        indent,
        this.twisty(node),
        chip(value[node], tree.range),
        markOf(tree.marks[node]),
        " ",
        tree.line(node),
      ),
      el("span.number", {}, whole(visits[node])),
      [value, reward, helpfulness, safety].map((column) =>
        el("span.number", {}, fixed(column[node])),
      ),
    );
    line.classList.toggle("ends", Boolean(terminal[node]));
    line.classList.toggle("own", Boolean(tree.own[node]));
    return line;
  }

  expanded(node) {
    return this.tree.childCount(node) ? String(!this.tree.folded[node]) : null;
  }

  twisty(node) {
    if (!this.tree.childCount(node)) return el("span.twisty");
    const label = this.tree.folded[node] ? "\u25b8" : "\u25be";
    const name = this.tree.folded[node] ? "Unfold" : "Fold";
    return button(label, () => this.fold(node), {
      class: "twisty",
      tabindex: -1,
      "aria-label": name,
    });
  }

  close() {
    this.list.close();
  }
}

const OUTLINE_TITLES = {
  Visits: "Rewards in the subtree",
  Value: "Mean of these rewards",
  Reward: "Of the node's own answer",
  H: "Helpfulness of that answer",
  S: "Safety of that answer",
};

/** + of a node that was chosen over another, - of one that was rejected. */
function markOf(marks) {
  const signs = [marks & CHOSEN && ["chosen", "+"], marks & REJECTED && ["rejected", MINUS]];
  return signs
    .filter(Boolean)
    .map(([name, sign]) => el(`span.mark.${name}`, { title: name }, sign));
}
