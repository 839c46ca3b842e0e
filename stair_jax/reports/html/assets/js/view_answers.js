// Answers to the cases of evaluations, by attack and judge, with disagreements.

async function answersView({ number, rest: [stage] }) {
  const all = await readOr(`cases/${number}`, []);
  if (!all.length)
    return el(
      "div.page",
      {},
      el("h1", {}, "Answers"),
      el("p.dim", {}, "No evaluation is finished."),
    );
  const list = evaluationOf(all, stage);
  const { query } = here();
  const pick = (name, otherwise) =>
    list.rows.includes(query[name]) ? list.rows.indexOf(query[name]) : otherwise;
  const sides = { a: pick("a", 0), b: pick("b", list.rows.length - 1) };
  const shown = listWithDetails({
    label: "Cases",
    key: "case",
    columns: caseColumns(list, sides),
    fields: caseFilters(list, sides),
    rows: rowsOf(list, "case"),
    above: folded("By benchmark, attack and judge", () => casesSummary(list, sides, number)),
    show: (row) => caseDetails(list, row, sides, number),
  });
  shown.filters.node.prepend(
    chooser("a", "Model A", list.rows, list.rows[sides.a]),
    chooser("b", "Model B", list.rows, list.rows[sides.b]),
  );
  if (all.length > 1)
    shown.node.prepend(
      tabs(
        all.map((one) => [one.stage, { path: ["answers", number, one.stage] }]),
        list.stage,
      ),
    );
  return shown;
}

/** What the second model got against the first, by what is better. */
function changeOf(list, row, { a, b }) {
  const [before, after] = [list.values[a][row], list.values[b][row]];
  if (before === null || after === null) return "not graded";
  if (before === after) return "same";
  return after > before !== list.low_is_good[row] ? "better" : "worse";
}

const CHANGES = ["better", "worse", "same", "not graded"];

function caseFilters(list, sides) {
  const rows = rowsOf(list, "case");
  const choice = (key, label) => choiceField(key, label, rows, (row) => list[key][row]);
  const judges = list.judges.length > 1;
  return [
    ...choice("benchmark", "Benchmark"),
    ...choice("attack", "Attack"),
    ...choice("group", "Group"),
    {
      key: "change",
      label: "B against A",
      options: CHANGES.map((name) => [name, name]),
      keeps: (row, value) => changeOf(list, row, sides) === value,
    },
    ...(judges
      ? [switchField("judges_differ", "Judges disagree", (row) => list.judges_differ[row])]
      : []),
    switchField("rows_differ", "Models differ", (row) => list.rows_differ[row]),
    textField(
      "Prompt or id",
      (row) => list.prompt[row],
      (row) => list.case[row],
    ),
  ];
}

const CHANGE_SIGNS = { better: "\u25b2", worse: "\u25bc", same: "=", "not graded": "" };

function caseColumns(list, sides) {
  const value = (name, side) => ({
    name,
    number: true,
    width: "4em",
    title: list.rows[sides[side]],
    of: (row) => figure(list.values[sides[side]][row]),
    sort: (row) => list.values[sides[side]][row],
  });
  const text = (name, key, width) => ({
    name,
    width,
    of: (row) => list[key][row],
    sort: (row) => list[key][row],
  });
  const several = (key, make) => (new Set(list[key]).size > 1 ? [make()] : []);
  return [
    ...several("benchmark", () => text("Benchmark", "benchmark", "7em")),
    ...several("attack", () => text("Attack", "attack", "7em")),
    text("Case", "case", "7em"),
    {
      name: "Prompt",
      width: "minmax(8em, 1fr)",
      of: (row) => list.prompt[row] || el("span.dim", {}, list.group[row]),
    },
    value("A", "a"),
    value("B", "b"),
    {
      name: "",
      width: "1.6em",
      title: "B against A",
      of: (row) => signOf(changeOf(list, row, sides)),
      sort: (row) => changeOf(list, row, sides),
    },
    ...(list.judges.length > 1
      ? [
          {
            name: "\u2260",
            width: "1.8em",
            title: "Judges disagree",
            of: (row) => (list.judges_differ[row] ? "\u2260" : ""),
            sort: (row) => Number(list.judges_differ[row]),
          },
        ]
      : []),
  ];
}

function signOf(change) {
  return el(`span.change.${change.replace(" ", "")}`, { title: change }, CHANGE_SIGNS[change]);
}
