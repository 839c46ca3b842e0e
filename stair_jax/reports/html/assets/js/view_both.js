// Two runs side by side: settings that differ, figures, trees and cases of the same prompts.

const BOTH_TABS = [
  ["Settings and figures", "figures"],
  ["Trees", "trees"],
  ["Cases", "cases"],
];

async function bothView({ rest: [kind = "figures", row] }) {
  const both = await readOr("both", { trees: [], cases: [] });
  const head = tabs(
    BOTH_TABS.map(([name, path]) => [name, { path: ["both", path] }]),
    BOTH_TABS.find(([, path]) => path === kind || path === `${kind}s`)?.[0],
  );
  if (kind === "trees") return withHead(head, await bothTrees(both));
  if (kind === "tree") {
    head.querySelector("[aria-current]").classList.add("up");
    return bothTree(both, Number(row), head);
  }
  if (kind === "cases") return withHead(head, await bothCases(both));
  const names = report.head.runs.map((run) => run.name);
  return el(
    "div.page",
    {},
    head,
    el("h1", {}, `${names[0]} and ${names[1]}`),
    settingsOfBoth(),
    await figuresOfBoth(),
  );
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
  const paths = [...new Set([...first.keys(), ...second.keys()])].filter(
    (path) => first.get(path) !== second.get(path),
  );
  const columns = [
    { name: "Setting", of: (path) => el("code", {}, path), sort: (path) => path },
    { name: report.head.runs[0].name, of: (path) => el("code", {}, first.get(path) ?? NO_FIGURE) },
    { name: report.head.runs[1].name, of: (path) => el("code", {}, second.get(path) ?? NO_FIGURE) },
  ];
  return el(
    "section",
    {},
    el("h2", {}, "Settings that differ"),
    paths.length ? table(columns, paths) : el("p.dim", {}, "None."),
  );
}

const columnKey = ({ benchmark, attack, metric, judge, corrected }) =>
  JSON.stringify([benchmark, attack, metric, judge, corrected]);

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
  const figures = sameFigures(
    ...(await Promise.all([0, 1].map((run) => readOr(`evaluations/${run}`, [])))),
  );
  if (!figures.length)
    return el(
      "section",
      {},
      el("h2", {}, "Figures"),
      el("p.dim", {}, "The runs have no figure in common."),
    );
  const gap = ({ a, b }) => (a.value === null || b.value === null ? null : b.value - a.value);
  const grid = new Grid({
    label: "Figures of both runs",
    columns: [
      { name: "Evaluation", width: "8em", of: ({ stage }) => stage, sort: ({ stage }) => stage },
      { name: "Model", width: "12em", of: ({ row }) => row, sort: ({ row }) => row },
      {
        name: "Figure",
        width: "minmax(14em, 1fr)",
        of: ({ column }) => columnName(column),
        sort: ({ column }) => columnName(column),
      },
      {
        name: report.head.runs[0].name,
        width: "8em",
        number: true,
        of: ({ a }) => inUnit(a.value, a.unit),
        sort: ({ a }) => a.value,
      },
      {
        name: report.head.runs[1].name,
        width: "8em",
        number: true,
        of: ({ b }) => inUnit(b.value, b.unit),
        sort: ({ b }) => b.value,
      },
      {
        name: "Difference",
        width: "7em",
        number: true,
        of: (one) => inUnit(gap(one), one.a.unit),
        sort: gap,
      },
    ],
  });
  grid.show(figures);
  grid.node.classList.add("short");
  return el("section", {}, el("h2", {}, "Figures"), grid.node);
}
