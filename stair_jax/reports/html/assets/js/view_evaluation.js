// Tables of evaluations: figures with their intervals, what they cost, which judges agree.

const IS_SHARE = { share: 100, percent: 1 };

/** A figure in its unit, for a table: shares as percent. */
function inUnit(value, unit) {
  if (value === null || value === undefined) return NO_FIGURE;
  return unit in IS_SHARE ? fixed(value * IS_SHARE[unit], 1) : figure(value);
}

function columnName({ benchmark, attack, metric, judge, corrected }) {
  const set = attack === "none" ? benchmark : `${benchmark}:${attack}`;
  return `${set} ${metric}${judge ? ` (${judge}${corrected ? ", corrected" : ""})` : ""}`;
}

function evaluationOf(evaluations, stage) {
  return evaluations.find((one) => one.stage === stage) ?? evaluations[0];
}

async function evaluationView({ number, rest: [stage] }) {
  const all = await readOr(`evaluations/${number}`, []);
  if (!all.length)
    return el("div.page", {}, el("h1", {}, "Evaluation"), el("p.dim", {}, "None is finished."));
  const evaluation = evaluationOf(all, stage);
  const chart = el("div.forest");
  const columns = evaluation.columns.map((column, index) => ({ ...column, index }));
  const table = el("div.scroll");
  const showColumn = (index) => {
    remember({ column: index });
    chart.replaceChildren(forest(evaluation, index) ?? "");
  };
  const show = (kept) => table.replaceChildren(evaluationTable(evaluation, kept, showColumn));
  const filters = new Filters(evaluationFilters(columns), columns, show);
  show(filters.kept());
  showColumn(clamp(Number(here().query.column ?? 0) || 0, 0, columns.length - 1));
  return el(
    "div.page",
    {},
    el("h1", {}, all.length > 1 ? "Evaluation" : evaluation.stage),
    all.length > 1 &&
      tabs(
        all.map((one) => [one.stage, { path: ["evaluation", number, one.stage] }]),
        evaluation.stage,
      ),
    filters.node,
    table,
    chart,
    comparedBlock(evaluation),
    judgesBlock(evaluation),
    costsBlock(evaluation),
    figuresBlock(evaluation),
  );
}

function evaluationFilters(columns) {
  const fields = [
    ["benchmark", "Benchmark"],
    ["attack", "Attack"],
    ["judge", "Judge"],
    ["role", "Role"],
  ];
  return [
    ...fields.flatMap(([key, label]) => choiceField(key, label, columns, (column) => column[key])),
    textField("Metric", (column) => column.metric),
  ];
}

function evaluationTable(evaluation, kept, showColumn) {
  const rows = evaluation.rows.map((label, row) => ({ label, cells: evaluation.cells[row] }));
  const columns = [
    { name: "Model", of: ({ label }) => label, sort: ({ label }) => label },
    ...kept.map((column) => ({
      name: columnHead(column),
      number: true,
      title: `${columnName(column)}, ${column.role}`,
      of: ({ cells }) => cellNode(cells[column.index]),
    })),
  ];
  const node = table(columns, rows, { classes: ".figures" });
  node.querySelectorAll("thead th").forEach((head, index) => {
    if (!index) return;
    const open = button("", () => showColumn(kept[index - 1].index), {
      title: "Show with intervals",
      class: "plain",
    });
    open.append(...head.childNodes);
    head.append(open);
  });
  return node;
}

function columnHead(column) {
  return el(
    "span.columnhead",
    {},
    el("b", {}, column.benchmark, column.attack !== "none" && ` : ${column.attack}`),
    el("span", {}, column.metric),
    el("small", {}, column.judge, column.corrected && " corrected"),
  );
}

function cellNode(cell) {
  if (!cell) return el("span.dim", {}, "");
  const said = [
    `${whole(cell.n)} of ${whole(cell.cases)} cases`,
    cell.missing && `${whole(cell.missing)} without a score`,
    cell.cut && `${whole(cell.cut)} cut off`,
    cell.note,
  ]
    .filter(Boolean)
    .join("; ");
  const ends =
    cell.low !== null &&
    cell.high !== null &&
    `${inUnit(cell.low, cell.unit)}\u2013${inUnit(cell.high, cell.unit)}`;
  return el(
    "span.cell",
    { title: said },
    el(
      "span",
      {},
      inUnit(cell.value, cell.unit),
      (cell.missing > 0 || cell.cut > 0) && el("sup", {}, "*"),
    ),
    el("small", {}, ends || "\u00a0"),
  );
}

function forest(evaluation, index) {
  const scaled = (value, unit) => (value === null ? null : value * (IS_SHARE[unit] ?? 1));
  const rows = evaluation.rows.map((name, row) => {
    const cell = evaluation.cells[row][index];
    if (!cell) return { name, value: null, low: null, high: null, said: "" };
    const [value, low, high] = [cell.value, cell.low, cell.high].map((one) =>
      scaled(one, cell.unit),
    );
    return {
      name,
      value,
      low,
      high,
      said: `${inUnit(cell.value, cell.unit)}, ${whole(cell.n)} cases`,
    };
  });
  return intervalChart(`${columnName(evaluation.columns[index])}, with 95 % intervals`, rows);
}

function comparedBlock({ compared, rows, columns, cells }) {
  if (!compared.length) return null;
  const shown = ({ row, column }, value) => inUnit(value, cells[row][column]?.unit);
  const isClear = ({ low, high }) => low !== null && (low > 0 || high < 0);
  const make = () =>
    el(
      "div.scroll",
      {},
      table(
        [
          { name: "Row", of: ({ row }) => rows[row], sort: ({ row }) => rows[row] },
          { name: "minus", of: ({ other }) => rows[other], sort: ({ other }) => rows[other] },
          {
            name: "Figure",
            of: ({ column }) => columnName(columns[column]),
            sort: ({ column }) => columnName(columns[column]),
          },
          {
            name: "Difference",
            number: true,
            of: (one) => el(isClear(one) ? "b" : "span", {}, shown(one, one.value)),
            sort: ({ value }) => value,
          },
          {
            name: "95 % interval",
            number: true,
            of: (one) => `${shown(one, one.low)} to ${shown(one, one.high)}`,
          },
          { name: "Cases", number: true, of: ({ n }) => whole(n), sort: ({ n }) => n },
        ],
        compared,
      ),
    );
  return el("section", {}, folded(`Rows compared on the same cases (${compared.length})`, make));
}

function judgesBlock({ pairs, columns }) {
  if (!pairs.length) return null;
  const make = () =>
    table(
      [
        { name: "Figure", of: ({ column }) => columnName(columns[column]) },
        { name: "Other judge", of: ({ other }) => other },
        {
          name: "Same label",
          number: true,
          of: ({ share }) => inUnit(share, "share"),
          sort: ({ share }) => share,
        },
        {
          name: "Cohen's kappa",
          number: true,
          of: ({ kappa }) => figure(kappa),
          sort: ({ kappa }) => kappa,
        },
        { name: "Answers", number: true, of: ({ n }) => whole(n) },
        { name: "Unlabelled", number: true, of: ({ missing }) => whole(missing) },
      ],
      pairs,
    );
  return el("section", {}, folded(`Agreement of judges (${pairs.length})`, make, true));
}

function costsBlock({ costs, rows }) {
  if (!costs.length) return null;
  const number = (name, key, shown = figure) => ({
    name,
    number: true,
    of: ([, cost]) => shown(cost[key]),
    sort: ([, cost]) => cost[key],
  });
  const make = () =>
    table(
      [
        { name: "Model", of: ([label]) => label, sort: ([label]) => label },
        number("Answers", "answers"),
        number("Tokens", "tokens"),
        number("Sampled", "generated_tokens"),
        number("Steps", "steps"),
        number("Time of all", "seconds", duration),
        number("Seconds to the answer", "latency"),
      ],
      costs.map((cost, row) => [rows[row], cost]),
    );
  return el("section", {}, folded("What answers cost, means of an answer", make));
}

function figuresBlock({ figures }) {
  if (!figures.length) return null;
  const image = ({ name, svg: text }) =>
    el(
      "figure",
      {},
      el("img", { alt: name, src: `data:image/svg+xml;base64,${base64(text)}` }),
      el("figcaption", {}, name),
    );
  return el(
    "section",
    {},
    folded(`Figures (${figures.length})`, () => el("div.pictures", {}, figures.map(image))),
  );
}

function base64(text) {
  return btoa(
    Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""),
  );
}
