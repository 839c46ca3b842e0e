// Answers to the same cases in two runs.

async function bothCases({ cases }) {
  if (!cases.length) return nothingInCommon("cases");
  const lists = await Promise.all([0, 1].map((run) => readOr(`cases/${run}`, [])));
  const placeOfCase = (row, run) => [lists[run][cases[row][2 * run]], cases[row][2 * run + 1]];
  const models = modelsOfBoth(lists, cases);
  const { query } = here();
  const model = models.includes(query.model) ? query.model : models.at(-1);
  const of = (key) => (row) => {
    const [list, at] = placeOfCase(row, 0);
    return list[key][at];
  };
  const value = (run) => (row) => {
    const [list, at] = placeOfCase(row, run);
    return list.values[list.rows.indexOf(model)]?.[at] ?? null;
  };
  const text = (name, key, width = "7em") => ({ name, width, of: of(key), sort: of(key) });
  const number = (run) => ({
    name: `Run ${run + 1}`,
    number: true,
    width: "5em",
    title: report.head.runs[run].name,
    of: (row) => figure(value(run)(row)),
    sort: value(run),
  });
  const rows = [...cases.keys()];
  const choice = (key, label) => choiceField(key, label, rows, of(key));
  const shown = listWithDetails({
    label: "Cases of both runs",
    key: "case",
    rows,
    columns: [
      text("Benchmark", "benchmark"),
      text("Attack", "attack"),
      text("Case", "case"),
      text("Prompt", "prompt", "minmax(8em, 1fr)"),
      number(0),
      number(1),
    ],
    fields: [
      ...choice("benchmark", "Benchmark"),
      ...choice("attack", "Attack"),
      switchField("differ", "Values", (row) => value(0)(row) !== value(1)(row), "differ", "equal"),
      textField("Prompt or id", of("prompt"), of("case")),
    ],
    show: async (row) => {
      const halves = [0, 1].map(async (run) => {
        const [list, at] = placeOfCase(row, run);
        const side = Math.max(0, list.rows.indexOf(model));
        const details = await caseDetails(list, at, { a: side, b: side }, run);
        return el("div.half", {}, el("b", {}, report.head.runs[run].name), details);
      });
      return el("div.halves", {}, await Promise.all(halves));
    },
  });
  shown.filters.node.prepend(chooser("model", "Model", models, model));
  return shown;
}

/** Models and methods that both runs have answers of. */
function modelsOfBoth(lists, cases) {
  const rows = (run) => new Set(cases.flatMap((row) => lists[run][row[2 * run]].rows));
  const second = rows(1);
  const common = [...rows(0)].filter((name) => second.has(name));
  return common.length ? common : [lists[0][cases[0][0]].rows.at(-1)];
}
