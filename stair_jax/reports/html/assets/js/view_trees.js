// The list of trees with filters, and a tree of it.

const SPREADS = [
  ["0", "none", (spread) => spread === 0],
  ["1", "up to 1", (spread) => spread > 0 && spread <= 1],
  ["3", "1 to 3", (spread) => spread > 1 && spread <= 3],
  ["more", "above 3", (spread) => spread > 3],
];

function spreadOf(list, row) {
  const [low, high] = [list.low[row], list.high[row]];
  return low === null || high === null ? null : high - low;
}

/** Judgements of a tree that gave no reward, or could not be read. */
function missingOf(list, row) {
  return list.missing[row] + list.unreadable[row];
}

function treeFilters(list) {
  const rows = rowsOf(list, "id");
  const some = (key, label, of) => switchField(key, label, of, "some", "none");
  const isSpread = Object.fromEntries(SPREADS.map(([name, , keeps]) => [name, keeps]));
  return [
    ...choiceField("stage", "Search", rows, (row) => list.stages[list.stage[row]]),
    ...choiceField("kind", "Kind", rows, (row) => list.kind[row]),
    ...choiceField("source", "Source", rows, (row) => list.source[row]),
    {
      key: "spread",
      label: "Spread of rewards",
      options: SPREADS,
      keeps: (row, value) => isSpread[value](spreadOf(list, row) ?? NaN),
    },
    some("pairs", "Pairs", (row) => list.pairs[row]),
    some("missing", "Missing judgements", (row) => missingOf(list, row)),
    some("malformed", "Malformed", (row) => list.malformed[row]),
    textField(
      "Prompt or id",
      (row) => list.prompt[row],
      (row) => list.id[row],
    ),
  ];
}

function treeColumns(list) {
  const range = extent(list.value) ?? [0, 0];
  const number = (name, key, title, places) => ({
    name,
    title,
    number: true,
    sort: (row) => list[key][row],
    of: (row) => (places === undefined ? whole(list[key][row]) : fixed(list[key][row], places)),
  });
  return [
    { name: "Tree", width: "8em", of: (row) => list.id[row], sort: (row) => list.id[row] },
    {
      name: "Search",
      width: "7.5em",
      of: (row) => list.stages[list.stage[row]],
      sort: (row) => list.stages[list.stage[row]],
    },
    { name: "Kind", width: "7em", of: (row) => list.kind[row], sort: (row) => list.kind[row] },
    {
      name: "Prompt",
      width: "minmax(12em, 1fr)",
      of: (row) => [
        list.block[row] === null && el("span.dim", { title: NOT_HERE }, "\u2298 "),
        list.prompt[row],
      ],
      sort: (row) => list.prompt[row],
    },
    { name: "Nodes", width: "4.6em", ...number("Nodes", "nodes", "The root included") },
    number("Depth", "depth", "Of the deepest node"),
    number("Visits", "visits", "Of the root"),
    {
      name: "Value",
      title: "Of the root",
      number: true,
      sort: (row) => list.value[row],
      of: (row) => [chip(list.value[row], range), fixed(list.value[row])],
    },
    {
      name: "Spread",
      title: "Highest reward less the lowest",
      number: true,
      sort: (row) => spreadOf(list, row),
      of: (row) => fixed(spreadOf(list, row)),
    },
    number("Pairs", "pairs", "Step pairs that were chosen from it"),
    {
      name: "Missing",
      title: "Judgements that are missing or could not be read",
      number: true,
      sort: (row) => missingOf(list, row),
      of: (row) => whole(missingOf(list, row)),
    },
    number("Tokens", "tokens", "Sampled for it"),
    number("Seconds", "seconds", "From its start to its end, beside others", 1),
  ];
}

async function treesView({ number }) {
  const list = await readOr(`trees/${number}`, null);
  if (!list)
    return el("div.page", {}, el("h1", {}, "Trees"), el("p.dim", {}, "This run has none."));
  const grid = new Grid({
    columns: treeColumns(list),
    label: "Trees",
    onopen: (row) => go(treePlace(number, list, row)),
  });
  const filters = new Filters(treeFilters(list), rowsOf(list, "id"), (rows) => showRows(rows));
  const showRows = (rows) => {
    lastShown.set(number, { grid });
    grid.show(rows);
  };
  showRows(filters.kept());
  const node = el("div.fill", {}, filters.node, grid.node);
  return { node, close: () => grid.close(), opened: () => grid.enter(lastOpened.get(number)) };
}

const lastShown = new Map(); // by run, the list of trees as it was shown last
const lastOpened = new Map(); // by run, the row of the tree that was opened last

function treePlace(number, list, row, query = {}) {
  return { path: ["tree", number, list.stages[list.stage[row]], list.id[row]], query };
}

function rowOfTree(list, stage, id) {
  return list.id.findIndex((one, row) => one === id && list.stages[list.stage[row]] === stage);
}

async function treePage({ number, rest: [stage, id] }) {
  const list = await readOr(`trees/${number}`, null);
  const row = list ? rowOfTree(list, stage, id) : -1;
  if (row < 0)
    return el("div.page", {}, el("p.note", {}, `This report has no tree ${id} of ${stage}.`));
  lastOpened.set(number, row);
  const record = await textsOf(list, `trees/${number}`, row);
  const head = treeHead(list, row, number);
  if (!record) return el("div.fill", {}, head, el("p.note", {}, NOT_HERE));
  const view = new TreeView(new Tree(record));
  return {
    node: el("div.fill", {}, head, view.node),
    opened: () => {
      view.opened();
      view.focus();
    },
    close: () => view.close(),
  };
}

function treeHead(list, row, number) {
  const rows = lastShown.get(number)?.grid.rows ?? rowsOf(list, "id");
  const at = rows.indexOf(row);
  const step = (by, label, key) => {
    const next = at < 0 ? undefined : rows[at + by];
    return button(label, () => go(treePlace(number, list, next)), {
      disabled: next === undefined,
      "data-key": key,
      title: `Key: ${key}`,
    });
  };
  return el(
    "div.treehead",
    {},
    el("a.up", { href: lastPlace(["trees", number]), title: "Key: Esc" }, "Trees"),
    el("b", {}, list.id[row]),
    el(
      "span.dim",
      {},
      [
        list.stages[list.stage[row]],
        list.kind[row],
        plural(list.nodes[row], "node"),
        plural(list.pairs[row], "pair"),
      ].join(", "),
    ),
    el("span.promptline", { title: list.prompt[row] }, list.prompt[row]),
    step(-1, "Previous", "["),
    step(1, "Next", "]"),
  );
}
