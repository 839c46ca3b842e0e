// Trees of the same prompts in two runs.

async function bothTrees({ trees }) {
  if (!trees.length) return nothingInCommon("trees of the same prompt");
  const lists = await Promise.all([0, 1].map((run) => readOr(`trees/${run}`, null)));
  const of = (key, run) => (row) => lists[run][key][trees[row][run]];
  const pair = (name, key, shown) =>
    [0, 1].map((run) => ({
      name: `${name} ${run + 1}`,
      number: true,
      of: (row) => shown(of(key, run)(row)),
      sort: of(key, run),
      title: report.head.runs[run].name,
    }));
  const search = (run) => (row) => lists[run].stages[of("stage", run)(row)];
  const change = (row) =>
    of("value", 0)(row) === null || of("value", 1)(row) === null
      ? null
      : of("value", 1)(row) - of("value", 0)(row);
  const grid = new Grid({
    label: "Trees of both runs",
    columns: [
      { name: "Search 1", width: "7em", of: search(0), sort: search(0) },
      { name: "Search 2", width: "7em", of: search(1), sort: search(1) },
      { name: "Kind", width: "7em", of: of("kind", 0), sort: of("kind", 0) },
      { name: "Prompt", width: "minmax(10em, 1fr)", of: of("prompt", 0), sort: of("prompt", 0) },
      ...pair("Nodes", "nodes", whole),
      ...pair("Value", "value", fixed),
      {
        name: "Change",
        number: true,
        title: "Of the value of the root",
        of: (row) => fixed(change(row)),
        sort: change,
      },
      ...pair("Pairs", "pairs", whole),
    ],
    onopen: (row) => go({ path: ["both", "tree", row] }),
  });
  const rows = [...trees.keys()];
  const fields = [
    ...choiceField("stage", "Search", rows, search(0)),
    textField("Prompt", of("prompt", 0)),
  ];
  const filters = new Filters(fields, rows, (rows) => grid.show(rows));
  grid.show(filters.kept());
  return { node: el("div.fill", {}, filters.node, grid.node), close: () => grid.close() };
}

/** Two trees; a step that is chosen in one is chosen in the other too, where it is there. */
async function bothTree({ trees }, row, head) {
  if (!trees[row]) return el("div.page", {}, head, el("p.note", {}, "There are no such trees."));
  const sides = await Promise.all(trees[row].map((at, run) => treeSide(run, at)));
  const views = sides.flatMap(({ view }) => (view ? [view] : []));
  if (views.length > 1) {
    views.forEach(
      (view, index) => (view.onchosen = (node) => follow(view, node, views[1 - index])),
    );
  }
  return {
    node: el(
      "div.fill",
      {},
      head,
      el(
        "div.halves",
        {},
        sides.map(({ node }) => node),
      ),
    ),
    opened: () => views.forEach((view) => view.opened()),
    close: () => views.forEach((view) => view.close()),
  };
}

async function treeSide(run, at) {
  const list = await read(`trees/${run}`);
  const record = await textsOf(list, `trees/${run}`, at);
  const names = [report.head.runs[run].name, list.stages[list.stage[at]], list.id[at]];
  const open = link(treePlace(run, list, at), names.join(", "));
  if (!record) return { node: el("div.half", {}, open, el("p.note", {}, NOT_HERE)) };
  const view = new TreeView(record, false);
  view.panel.setAttribute("aria-label", visible(`Chosen node, ${names[0]}`));
  return { view, node: el("div.half", {}, open, view.node) };
}

function follow(view, node, other) {
  const same = sameNode(view.tree, node, other.tree);
  if (same >= 0 && same !== other.selected) other.select(same);
}

/** The node of another tree to which the same steps lead; -1: there is none. */
function sameNode(tree, node, other) {
  return tree.path(node).reduce((at, step) => {
    if (at < 0) return -1;
    const text = tree.nodes.text[step];
    return other.children(at).find((child) => other.nodes.text[child] === text) ?? -1;
  }, 0);
}
