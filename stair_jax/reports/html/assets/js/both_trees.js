// Trees of the same prompts in two runs.

const lastBoth = { row: 0 }; // that was opened last

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
  return {
    node: el("div.fill", {}, filters.node, grid.node),
    opened: () => grid.enter(lastBoth.row),
    close: () => grid.close(),
  };
}

/** Two trees; a step that is chosen in one is chosen in the other too, where it is there. */
async function bothTree({ trees }, row, head) {
  if (!trees[row]) return el("div.page", {}, head, el("p.note", {}, "There are no such trees."));
  lastBoth.row = row;
  const sides = await Promise.all(trees[row].map(treeSide));
  const found = sides.flatMap(({ tree }) => (tree ? [tree] : []));
  const range = extent(found.flatMap((tree) => tree.range));
  for (const tree of found) tree.range = range; // the same colours in both
  const views = found.map((tree) => new TreeView(tree, false));
  if (views.length > 1) views.forEach((view, index) => compareWith(view, views[1 - index]));
  const left = [...views];
  const halves = sides.map(({ tree, name, place }) => {
    const view = tree && left.shift();
    view?.panel.setAttribute("aria-label", visible(`Chosen node, ${name}`));
    return el("div.half", {}, link(place, name), view ? view.node : el("p.note", {}, NOT_HERE));
  });
  const said = el("p.own.legend", {}, "In this colour: steps that the other tree does not have.");
  return {
    node: el("div.fill", {}, head, said, el("div.halves", {}, halves)),
    opened: () => {
      views.forEach((view) => view.opened());
      views[0]?.focus();
    },
    close: () => views.forEach((view) => view.close()),
  };
}

/** A tree of a run with its name and place; without the tree where it is not in this file. */
async function treeSide(at, run) {
  const list = await read(`trees/${run}`);
  const record = await textsOf(list, `trees/${run}`, at);
  const name = [report.head.runs[run].name, list.stages[list.stage[at]], list.id[at]].join(", ");
  return { tree: record && new Tree(record), name, place: treePlace(run, list, at) };
}

/** Marks the nodes that the other tree does not have, and chooses there what is chosen here. */
function compareWith(view, other) {
  const same = sameNodes(view.tree, other.tree);
  view.tree.own = same.map((node) => node < 0);
  view.onchosen = (node) => {
    if (same[node] >= 0 && same[node] !== other.selected) other.select(same[node]);
  };
}

/** Of each node the one of another tree to which the same steps lead; -1: there is none. */
function sameNodes(tree, other) {
  const found = new Int32Array(tree.size).fill(-1);
  found[0] = 0;
  for (let node = 1; node < tree.size; node++) {
    const above = found[tree.parent[node]];
    if (above < 0) continue;
    const text = tree.nodes.text[node];
    found[node] = other.children(above).find((child) => other.nodes.text[child] === text) ?? -1;
  }
  return found;
}
