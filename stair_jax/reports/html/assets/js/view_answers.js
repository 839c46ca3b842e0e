// Answers to the cases of evaluations, by attack and judge, with disagreements.

async function answersView({ number, rest: [stage] }) {
  const all = await readOr(`cases/${number}`, []);
  if (!all.length) return el("div.page", {}, el("h1", {}, "Answers"), el("p.dim", {}, "No evaluation is finished."));
  const list = evaluationOf(all, stage);
  const { query } = here();
  const pick = (name, otherwise) => (list.rows.includes(query[name]) ? list.rows.indexOf(query[name]) : otherwise);
  const sides = { a: pick("a", 0), b: pick("b", list.rows.length - 1) };
  const shown = listWithDetails({
    label: "Cases", key: "case", columns: caseColumns(list, sides), fields: caseFilters(list, sides), rows: rowsOf(list, "case"),
    show: (row) => caseDetails(list, row, sides, number),
  });
  const chooser = (name, label) =>
    el("label", {}, el("span", {}, label), el("select", { name, onchange: (event) => {
      remember({ [name]: event.target.value });
      showPlace();
    } }, list.rows.map((row, index) => el("option", { value: row, selected: index === sides[name] }, row))));
  shown.filters.node.prepend(chooser("a", "Model A"), chooser("b", "Model B"));
  if (all.length > 1) shown.node.prepend(tabs(all.map((one) => [one.stage, { path: ["answers", number, one.stage] }]), list.stage));
  return shown;
}

/** What the second model got against the first, by what is better. */
function changeOf(list, row, { a, b }) {
  const [before, after] = [list.values[a][row], list.values[b][row]];
  if (before === null || after === null) return "not graded";
  if (before === after) return "same";
  return after > before !== list.low_is_good[row] ? "better" : "worse";
}

function caseFilters(list, sides) {
  const column = (key) => {
    const options = optionsOf(list[key], (value) => value || "none");
    const label = key[0].toUpperCase() + key.slice(1);
    return options.length > 1 ? [{ key, label, options, keeps: (row, value) => list[key][row] === value }] : [];
  };
  const changes = ["better", "worse", "same", "not graded"];
  const yesNo = (key, label) => ({ key, label, options: [["yes", "yes"], ["no", "no"]], keeps: (row, value) => list[key][row] === (value === "yes") });
  return [
    ...["benchmark", "attack", "group"].flatMap(column),
    { key: "change", label: "B against A", options: changes.map((name) => [name, name]), keeps: (row, value) => changeOf(list, row, sides) === value },
    ...(list.judges.length > 1 ? [yesNo("judges_differ", "Judges disagree")] : []),
    yesNo("rows_differ", "Models differ"),
    { key: "q", label: "Prompt or id", keeps: (row, value) => hasText(list.prompt[row], value) || hasText(list.case[row], value) },
  ];
}

const CHANGE_SIGNS = { better: "\u25b2", worse: "\u25bc", same: "=", "not graded": "" };

function caseColumns(list, sides) {
  const value = (name, side) => ({
    name, number: true, width: "4em", title: list.rows[sides[side]], of: (row) => figure(list.values[sides[side]][row]), sort: (row) => list.values[sides[side]][row],
  });
  const text = (name, key, width) => ({ name, width, of: (row) => list[key][row], sort: (row) => list[key][row] });
  const several = (key, make) => (new Set(list[key]).size > 1 ? [make()] : []);
  return [
    ...several("benchmark", () => text("Benchmark", "benchmark", "7em")), ...several("attack", () => text("Attack", "attack", "7em")),
    text("Case", "case", "7em"),
    { name: "Prompt", width: "minmax(8em, 1fr)", of: (row) => list.prompt[row] || el("span.dim", {}, list.group[row]) },
    value("A", "a"), value("B", "b"),
    { name: "", width: "1.6em", title: "B against A", of: (row) => signOf(changeOf(list, row, sides)), sort: (row) => changeOf(list, row, sides) },
    ...(list.judges.length > 1 ? [{ name: "\u2260", width: "1.8em", title: "Judges disagree", of: (row) => (list.judges_differ[row] ? "\u2260" : ""), sort: (row) => Number(list.judges_differ[row]) }] : []),
  ];
}

function signOf(change) {
  return el(`span.change.${change.replace(" ", "")}`, { title: change }, CHANGE_SIGNS[change]);
}

async function caseDetails(list, row, sides, number) {
  const head = el("h2", {}, list.case[row], el("small", {}, [list.benchmark[row], list.attack[row] !== "none" && list.attack[row], list.group[row]].filter(Boolean).join(", ")));
  const found = await textsOf(list, `cases/${number}`, row);
  if (!found) return el("div.details", {}, head, el("p.note", {}, NOT_HERE));
  const metric = list.metric[row] && `${list.metric[row]}, ${list.low_is_good[row] ? "lower" : "higher"} is better`;
  const first = [sides.a, sides.b];
  const of = (side) => found.answers.filter(({ row: one }) => one === side);
  const others = found.answers.filter(({ row: one }) => !first.includes(one));
  const block = (answer) => answerDetails(list, row, answer);
  return el(
    "div.details", {},
    head,
    el("section", {}, found.turns.length ? turnsBlock(found.turns) : el("p.dim", {}, "The prompt is not known any more.")),
    found.reference && facts([["Right answer", found.reference]]),
    metric && el("p.dim", {}, metric),
    el(`div.sides${sides.a === sides.b ? ".one" : ""}`, {}, [...new Set(first)].map((side) => el("div.side", {}, of(side).map(block)))),
    others.length > 0 && el("section", {}, el("h3", {}, "Other models"), others.map((answer) =>
      folded(`${list.rows[answer.row]}: ${figure(list.values[answer.row][row])}`, () => block(answer)))),
  );
}

const FINISHES = { length: "cut off at the limit of tokens", too_long: "prompt too long", content_filter: "held back by a filter", missing: "no answer" };

function answerDetails(list, row, answer) {
  const said = [plural(answer.tokens, "token"), answer.generated_tokens > answer.tokens && `${whole(answer.generated_tokens)} sampled`, FINISHES[answer.finish]];
  return el(
    "article.answers", {},
    el("h4", {}, list.rows[answer.row], " ", el("span.value", {}, figure(list.values[answer.row][row])), el("small", {}, said.filter(Boolean).join(", "))),
    answer.asked.length > 0 && folded("As the attack asked it", () => turnsBlock(answer.asked)),
    answerBlock(answer.text),
    answer.grades.map((grade) => gradeBlock(grade, answer.grades)),
  );
}

/** What a judge found; marked where another judge has another label. */
function gradeBlock(grade, all) {
  const labels = new Set(all.map(({ label }) => label).filter((label) => label !== null));
  const scores = Object.entries(grade.scores).map(([name, value]) => `${name} ${figure(value)}`).join(", ");
  const head = [grade.judge || "Without a judge", grade.label !== null && el("b", {}, ` ${grade.label}`), labels.size > 1 && grade.label !== null && el("span.differs", {}, "\u2260 judges disagree"), el("small", {}, scores)];
  const summary = el("span", {}, head);
  return el("div.grade", {}, grade.text ? folded(summary, () => el("div.text.words", {}, grade.text)) : summary);
}
