// Preference pairs: a list, and a pair as a diff over the path that both sides share, in its tree.

function pairFilters(list) {
  const rows = rowsOf(list, "id");
  return [
    ...choiceField("file", "File", rows, (row) => list.files[list.file[row]]),
    ...choiceField("kind", "Kind", rows, (row) => list.kind[row]),
    ...choiceField("form", "Form", rows, (row) => list.form[row]),
    textField(
      "Prompt or id",
      (row) => list.prompt[row],
      (row) => list.id[row],
    ),
  ];
}

function gapOf(list, row) {
  const [better, worse] = [list.chosen_value[row], list.rejected_value[row]];
  return better === null || worse === null ? null : better - worse;
}

function pairColumns(list) {
  const column = (name, of, title) => ({
    name,
    title,
    number: true,
    width: "3.8em",
    of: (row) => fixed(of(row)),
    sort: of,
  });
  return [
    {
      name: "File",
      width: "7em",
      of: (row) => list.files[list.file[row]],
      sort: (row) => list.files[list.file[row]],
    },
    { name: "Kind", width: "5.8em", of: (row) => list.kind[row], sort: (row) => list.kind[row] },
    {
      name: "Prompt",
      width: "minmax(8em, 1fr)",
      of: (row) => list.prompt[row],
      sort: (row) => list.prompt[row],
    },
    column("+", (row) => list.chosen_value[row], "Value of the chosen side"),
    column(MINUS, (row) => list.rejected_value[row], "Value of the rejected side"),
    column("Gap", (row) => gapOf(list, row), "Difference of the values"),
    {
      name: "Depth",
      number: true,
      width: "3em",
      of: (row) => figure(list.depth[row]),
      sort: (row) => list.depth[row],
    },
  ];
}

async function pairsView({ number }) {
  const list = await readOr(`pairs/${number}`, null);
  if (!list)
    return el("div.page", {}, el("h1", {}, "Pairs"), el("p.dim", {}, "This run has none."));
  const show = (row) => pairDetails(list, row, number);
  return listWithDetails({
    label: "Preference pairs",
    key: "pair",
    columns: pairColumns(list),
    fields: pairFilters(list),
    rows: rowsOf(list, "id"),
    show,
  });
}

async function pairDetails(list, row, number) {
  const pair = await textsOf(list, `pairs/${number}`, row);
  const head = el(
    "h2",
    {},
    list.id[row],
    el("small", {}, `${list.files[list.file[row]]}, ${list.form[row]}`),
  );
  if (!pair) return el("div.details", {}, head, el("p.note", {}, NOT_HERE));
  const side = (name) =>
    [
      `value ${figure(list[`${name}_value`][row])}`,
      list[`${name}_visits`][row] !== null && plural(list[`${name}_visits`][row], "visit"),
    ]
      .filter(Boolean)
      .join(", ");
  return el(
    "div.details",
    {},
    head,
    el("section", {}, turnsBlock(pair.turns, pair.prompt)),
    pair.path.length > 0 &&
      el(
        "section",
        {},
        el("h3", {}, plural(pair.path.length, "shared step")),
        pair.path.map((step) => stepBlock(step)),
      ),
    el(
      "section",
      {},
      el("h3", {}, "Where they part"),
      stepSides(pair, side("chosen"), side("rejected")),
    ),
    await placeInTree(list, row, number),
  );
}

function stepSides(pair, ofBetter, ofWorse) {
  const text = (steps) => steps.map(plainStep).join("\n\n");
  return sidesBlock([text(pair.chosen), text(pair.rejected)], [ofBetter, ofWorse]);
}

/** The tree of a pair, small, with the pair in it. */
async function placeInTree(list, row, number) {
  if (list.tree[row] === null) return null;
  const trees = await readOr(`trees/${number}`, null);
  if (!trees) return null;
  const at = list.tree[row];
  const open = link(
    treePlace(number, trees, at, { node: list.chosen[row] }),
    `Open tree ${trees.id[at]}`,
  );
  const record = await textsOf(trees, `trees/${number}`, at);
  if (!record) return el("section", {}, el("h3", {}, "In its tree"), open);
  const view = new TreeCanvas(new Tree(record), (node) =>
    go(treePlace(number, trees, at, { node })),
  );
  view.pair = [list.chosen[row], list.rejected[row]].every((node) => node !== null)
    ? [list.chosen[row], list.rejected[row]]
    : null;
  view.selected = list.chosen[row] ?? 0;
  const node = el("section", {}, el("h3", {}, "In its tree ", open), view.node);
  node.close = () => view.close();
  return node;
}
