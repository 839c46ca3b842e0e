// A tree: canvas or outline on the left, the chosen node on the right.

class TreeView {
  /** `isKept`: whether the address keeps the chosen node and how `tree` is shown. */
  constructor(tree, isKept = true) {
    this.isKept = isKept;
    this.tree = tree;
    this.node = el("div.treeview");
    this.shown = el("div.shown");
    this.panel = el("aside.panel", { "aria-label": "Chosen node" });
    this.hits = [];
    const query = isKept ? here().query : {};
    this.kind = query.as === "outline" ? "outline" : "canvas";
    const start = Number(query.node);
    this.selected = Number.isInteger(start) && start > 0 && start < this.tree.size ? start : 0;
    this.node.append(this.toolbar(), this.shown, this.panel);
  }

  /** Called once the view is in the page. */
  opened() {
    this.show(this.kind);
    this.select(this.selected);
  }

  toolbar() {
    const kinds = [
      ["canvas", "Canvas"],
      ["outline", "Outline"],
    ];
    this.kinds = kinds.map(([name, label]) =>
      button(label, () => this.change(name), { "data-kind": name }),
    );
    const depths = Array.from({ length: Math.min(8, this.depth()) }, (_, index) => index + 1);
    const fold = el(
      "select",
      { "aria-label": "Fold", onchange: (event) => this.foldBelow(Number(event.target.value)) },
      el("option", { value: -1 }, "all depths"),
      depths.map((depth) => el("option", { value: depth }, `depth ${depth}`)),
    );
    this.search = el("input", {
      type: "search",
      placeholder: "Find in texts",
      "aria-label": "Find in texts",
      "data-find": true,
      oninput: () => this.find(this.search.value),
      onkeydown: (event) => event.key === "Enter" && this.nextHit(event.shiftKey ? -1 : 1),
    });
    this.hitCount = el("output.count");
    return el(
      "div.toolbar",
      {},
      el("span.segments", { role: "group", "aria-label": "Shown as" }, this.kinds),
      el("label", {}, "Down to ", fold),
      button("Fit", () => this.view.fit?.(), { title: "Key: F" }),
      this.tree.pairs.length > 0 &&
        button(plural(this.tree.pairs.length, "pair"), () => this.nextPair(), {
          title: "Go to the next pair",
        }),
      this.search,
      this.hitCount,
      legend(this.tree),
    );
  }

  depth() {
    return this.tree.depth.reduce((most, depth) => Math.max(most, depth), 0);
  }

  focus() {
    (this.view.canvas ?? this.view.list.node).focus({ preventScroll: true });
  }

  change(kind) {
    this.show(kind);
    this.keep({ as: kind === "outline" ? kind : "" });
    this.view.select(this.selected, false);
  }

  keep(changes) {
    if (this.isKept) remember(changes);
  }

  show(kind) {
    this.view?.close();
    this.view = new (kind === "outline" ? TreeOutline : TreeCanvas)(this.tree, (node) =>
      this.chosen(node),
    );
    this.view.found = new Set(this.hits);
    this.view.selected = this.selected;
    this.shown.replaceChildren(this.view.node);
    this.kinds.forEach((one) =>
      one.setAttribute("aria-pressed", String(one.dataset.kind === kind)),
    );
  }

  select(node) {
    this.view.select(node);
  }

  chosen(node) {
    this.selected = node;
    const [pair = null] = this.tree.pairsOf(node);
    this.view.pair = pair;
    this.panel.replaceChildren(nodeDetails(this, node));
    this.panel.scrollTop = 0;
    this.keep({ node: node || "" });
    this.onchosen?.(node);
    say(
      `${node ? `Node ${node}` : "Prompt"}, ${figuresOf(this.tree, node)}. ${this.tree.line(node)}`,
    );
  }

  foldBelow(depth) {
    this.tree.foldBelow(depth);
    this.view.relayout();
    this.view.fit?.();
  }

  find(wanted) {
    this.hits = wanted ? this.tree.find(wanted) : [];
    this.hitCount.textContent = wanted ? plural(this.hits.length, "node") : "";
    this.view.found = new Set(this.hits);
    this.view.draw();
  }

  nextHit(by) {
    if (!this.hits.length) return;
    const at = this.hits.indexOf(this.selected);
    this.select(this.hits[(at < 0 ? 0 : at + by + this.hits.length) % this.hits.length]);
  }

  nextPair() {
    const at = this.tree.pairs.findIndex(([chosen]) => chosen === this.selected);
    this.select(this.tree.pairs[(at + 1) % this.tree.pairs.length][0]);
  }

  close() {
    this.view?.close();
  }
}

function legend(tree) {
  const [least, most] = tree.range;
  const shades = Array.from({ length: 7 }, (_, index) => el(`span.chip.shade${index * 2}`));
  const said =
    "n: visits, the size; v: value, the colour; r: reward; ring: an end; + and \u2212: of pairs";
  return el(
    "span.legend",
    { title: said },
    "value ",
    figure(least),
    el("span.scale", {}, shades),
    figure(most),
  );
}
