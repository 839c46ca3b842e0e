// Two runs side by side: settings that differ, figures, trees and cases of the same prompts.

const BOTH_TABS = [["Settings and figures", "figures"], ["Trees", "trees"], ["Cases", "cases"]];

async function bothView({ rest: [kind = "figures", row] }) {
  const both = await readOr("both", { trees: [], cases: [] });
  const head = tabs(BOTH_TABS.map(([name, path]) => [name, { path: ["both", path] }]), BOTH_TABS.find(([, path]) => path === kind || path === `${kind}s`)?.[0]);
  if (kind === "trees") return withHead(head, await bothTrees(both));
  if (kind === "tree") return bothTree(both, Number(row), head);
  if (kind === "cases") return withHead(head, await bothCases(both));
  const names = report.head.runs.map((run) => run.name);
  return el("div.page", {}, head, el("h1", {}, `${names[0]} and ${names[1]}`), settingsOfBoth(), await figuresOfBoth());
}

function nothingInCommon(what) {
  return { node: el("div.fill", {}, el("p.note", {}, `The runs have no ${what} in common.`)) };
}

function withHead(head, shown) {
  shown.node.prepend(head);
  return shown;
}

function settingsOfBoth() {
  const [first, second] = report.head.runs.map((run) => new Map(flattened(run.config)));
  const paths = [...new Set([...first.keys(), ...second.keys()])].filter((path) => first.get(path) !== second.get(path));
  const columns = [
    { name: "Setting", of: (path) => el("code", {}, path), sort: (path) => path },
    { name: report.head.runs[0].name, of: (path) => el("code", {}, first.get(path) ?? NO_FIGURE) },
    { name: report.head.runs[1].name, of: (path) => el("code", {}, second.get(path) ?? NO_FIGURE) },
  ];
  return el("section", {}, el("h2", {}, "Settings that differ"), paths.length ? table(columns, paths) : el("p.dim", {}, "None."));
}

const columnKey = ({ benchmark, attack, metric, judge, corrected }) => JSON.stringify([benchmark, attack, metric, judge, corrected]);

/** Figures that both runs have: the same stage, row and column. */
function sameFigures(first, second) {
  const found = [];
  for (const one of first) {
    const other = second.find(({ stage }) => stage === one.stage);
    if (!other) continue;
    const places = new Map(other.columns.map((column, index) => [columnKey(column), index]));
    one.rows.forEach((row, at) => {
      const to = other.rows.indexOf(row);
      one.columns.forEach((column, index) => {
        const [a, b] = [one.cells[at][index], other.cells[to]?.[places.get(columnKey(column))]];
        if (a && b) found.push({ stage: one.stage, row, column, a, b });
      });
    });
  }
  return found;
}

async function figuresOfBoth() {
  const figures = sameFigures(...(await Promise.all([0, 1].map((run) => readOr(`evaluations/${run}`, [])))));
  if (!figures.length) return el("section", {}, el("h2", {}, "Figures"), el("p.dim", {}, "The runs have no figure in common."));
  const gap = ({ a, b }) => (a.value === null || b.value === null ? null : b.value - a.value);
  const grid = new Grid({
    label: "Figures of both runs",
    columns: [
      { name: "Evaluation", width: "8em", of: ({ stage }) => stage, sort: ({ stage }) => stage },
      { name: "Model", width: "12em", of: ({ row }) => row, sort: ({ row }) => row },
      { name: "Figure", width: "minmax(14em, 1fr)", of: ({ column }) => columnName(column), sort: ({ column }) => columnName(column) },
      { name: report.head.runs[0].name, width: "8em", number: true, of: ({ a }) => inUnit(a.value, a.unit), sort: ({ a }) => a.value },
      { name: report.head.runs[1].name, width: "8em", number: true, of: ({ b }) => inUnit(b.value, b.unit), sort: ({ b }) => b.value },
      { name: "Difference", width: "7em", number: true, of: (one) => inUnit(gap(one), one.a.unit), sort: gap },
    ],
  });
  grid.show(figures);
  grid.node.classList.add("short");
  return el("section", {}, el("h2", {}, "Figures"), grid.node);
}

async function bothTrees({ trees }) {
  if (!trees.length) return nothingInCommon("trees of the same prompt");
  const lists = await Promise.all([0, 1].map((run) => readOr(`trees/${run}`, null)));
  const of = (key, run) => (row) => lists[run][key][trees[row][run]];
  const pair = (name, key, shown) => [0, 1].map((run) => ({
    name: `${name} ${run + 1}`, number: true, of: (row) => shown(of(key, run)(row)), sort: of(key, run), title: report.head.runs[run].name,
  }));
  const search = (run) => (row) => lists[run].stages[of("stage", run)(row)];
  const change = (row) => (of("value", 0)(row) === null || of("value", 1)(row) === null ? null : of("value", 1)(row) - of("value", 0)(row));
  const grid = new Grid({
    label: "Trees of both runs",
    columns: [
      { name: "Search 1", width: "7em", of: search(0), sort: search(0) },
      { name: "Search 2", width: "7em", of: search(1), sort: search(1) },
      { name: "Kind", width: "7em", of: of("kind", 0), sort: of("kind", 0) },
      { name: "Prompt", width: "minmax(10em, 1fr)", of: of("prompt", 0), sort: of("prompt", 0) },
      ...pair("Nodes", "nodes", whole), ...pair("Value", "value", fixed),
      { name: "Change", number: true, title: "Of the value of the root", of: (row) => fixed(change(row)), sort: change },
      ...pair("Pairs", "pairs", whole),
    ],
    onopen: (row) => go({ path: ["both", "tree", row] }),
  });
  const fields = [
    { key: "stage", label: "Search", options: optionsOf(trees.map((_, row) => search(0)(row))), keeps: (row, value) => search(0)(row) === value },
    { key: "q", label: "Prompt", keeps: (row, value) => hasText(of("prompt", 0)(row), value) },
  ];
  const filters = new Filters(fields, [...trees.keys()], (rows) => grid.show(rows));
  grid.show(filters.kept());
  return { node: el("div.fill", {}, filters.node, grid.node), close: () => grid.close() };
}

async function bothTree({ trees }, row, head) {
  if (!trees[row]) return el("div.page", {}, head, el("p.note", {}, "The runs have no such trees in common."));
  const views = [];
  const sides = await Promise.all([0, 1].map(async (run) => {
    const list = await read(`trees/${run}`);
    const record = await textsOf(list, `trees/${run}`, trees[row][run]);
    const open = link(treePlace(run, list, trees[row][run]), `${report.head.runs[run].name}, ${list.stages[list.stage[trees[row][run]]]}, ${list.id[trees[row][run]]}`);
    if (!record) return el("div.half", {}, open, el("p.note", {}, NOT_HERE));
    const view = new TreeView(record, false);
    views.push(view);
    return el("div.half", {}, open, view.node);
  }));
  return {
    node: el("div.fill", {}, head, el("div.halves", {}, sides)),
    opened: () => views.forEach((view) => view.opened()),
    close: () => views.forEach((view) => view.close()),
  };
}

async function bothCases({ cases }) {
  if (!cases.length) return nothingInCommon("cases");
  const lists = await Promise.all([0, 1].map((run) => readOr(`cases/${run}`, [])));
  const ofFirst = (row) => [lists[0][cases[row][0]], cases[row][1]];
  const ofSecond = (row) => [lists[1][cases[row][2]], cases[row][3]];
  const best = ([list, at]) => list.values.at(-1)[at];
  const text = (name, key, width) => ({ name, width, of: (row) => ofFirst(row)[0][key][ofFirst(row)[1]], sort: (row) => ofFirst(row)[0][key][ofFirst(row)[1]] });
  const value = (name, of, run) => ({ name, number: true, width: "7em", title: `${report.head.runs[run].name}, last model`, of: (row) => figure(best(of(row))), sort: (row) => best(of(row)) });
  return listWithDetails({
    label: "Cases of both runs", key: "case", rows: [...cases.keys()],
    columns: [text("Benchmark", "benchmark", "7em"), text("Attack", "attack", "7em"), text("Case", "case", "7em"), text("Prompt", "prompt", "minmax(8em, 1fr)"),
      value("Run 1", ofFirst, 0), value("Run 2", ofSecond, 1)],
    fields: [
      { key: "differ", label: "Values", options: [["yes", "differ"], ["no", "equal"]], keeps: (row, wanted) => (best(ofFirst(row)) !== best(ofSecond(row))) === (wanted === "yes") },
      { key: "q", label: "Prompt or id", keeps: (row, wanted) => ["prompt", "case"].some((key) => hasText(ofFirst(row)[0][key][ofFirst(row)[1]], wanted)) },
    ],
    show: async (row) => {
      const sides = await Promise.all([ofFirst(row), ofSecond(row)].map(async ([list, at], run) => {
        const details = await caseDetails(list, at, { a: list.rows.length - 1, b: list.rows.length - 1 }, run);
        return el("div.half", {}, el("b", {}, report.head.runs[run].name), details);
      }));
      return el("div.halves", {}, sides);
    },
  });
}
