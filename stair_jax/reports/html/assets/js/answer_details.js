// A case with its answers, and what each judge found of them.

async function caseDetails(list, row, sides, number) {
  const head = el(
    "h2",
    {},
    list.case[row],
    el(
      "small",
      {},
      [list.benchmark[row], list.attack[row] !== "none" && list.attack[row], list.group[row]]
        .filter(Boolean)
        .join(", "),
    ),
  );
  const found = await textsOf(list, `cases/${number}`, row);
  if (!found) return el("div.details", {}, head, el("p.note", {}, NOT_HERE));
  const metric =
    list.metric[row] &&
    `${list.metric[row]}, ${list.low_is_good[row] ? "lower" : "higher"} is better`;
  const first = [sides.a, sides.b];
  const of = (side) => found.answers.filter(({ row: one }) => one === side);
  const others = found.answers.filter(({ row: one }) => !first.includes(one));
  const block = (answer) => answerDetails(list, row, answer);
  return el(
    "div.details",
    {},
    head,
    el(
      "section",
      {},
      found.turns.length
        ? turnsBlock(found.turns)
        : el("p.dim", {}, "The prompt is not known any more."),
    ),
    found.reference && facts([["Right answer", found.reference]]),
    metric && el("p.dim", {}, metric),
    el(
      `div.sides${sides.a === sides.b ? ".one" : ""}`,
      {},
      [...new Set(first)].map((side) => el("div.side", {}, of(side).map(block))),
    ),
    others.length > 0 &&
      el(
        "section",
        {},
        el("h3", {}, "Other models"),
        others.map((answer) =>
          folded(`${list.rows[answer.row]}: ${figure(list.values[answer.row][row])}`, () =>
            block(answer),
          ),
        ),
      ),
  );
}

const FINISHES = {
  length: "cut off at the limit of tokens",
  too_long: "prompt too long",
  content_filter: "held back by a filter",
  missing: "no answer",
};

function answerDetails(list, row, answer) {
  const said = [
    plural(answer.tokens, "token"),
    answer.generated_tokens > answer.tokens && `${whole(answer.generated_tokens)} sampled`,
    FINISHES[answer.finish],
  ];
  return el(
    "article.answers",
    {},
    el(
      "h3",
      {},
      list.rows[answer.row],
      " ",
      el("span.value", {}, figure(list.values[answer.row][row])),
      el("small", {}, said.filter(Boolean).join(", ")),
    ),
    answer.asked.length > 0 && folded("As the attack asked it", () => turnsBlock(answer.asked)),
    answerBlock(answer.text),
    answer.grades.map((grade) => gradeBlock(grade, answer.grades)),
  );
}

/** What a judge found; marked where another judge has another label. */
function gradeBlock(grade, all) {
  const labels = new Set(all.map(({ label }) => label).filter((label) => label !== null));
  const scores = Object.entries(grade.scores)
    .map(([name, value]) => `${name} ${figure(value)}`)
    .join(", ");
  const head = [
    grade.judge || "Without a judge",
    grade.label !== null && el("b", {}, ` ${grade.label}`),
    labels.size > 1 && grade.label !== null && el("span.differs", {}, "\u2260 judges disagree"),
    el("small", {}, scores),
  ];
  const summary = el("span", {}, head);
  return el(
    "div.grade",
    {},
    grade.text ? folded(summary, () => el("div.text.words", {}, grade.text)) : summary,
  );
}
