// The cases of an evaluation in numbers, by benchmark and attack.

/** Rows of a list by benchmark and attack. */
function casesBySet(list) {
  const sets = new Map();
  for (const row of list.case.keys()) {
    const key = JSON.stringify([list.benchmark[row], list.attack[row]]);
    if (!sets.has(key)) sets.set(key, []);
    sets.get(key).push(row);
  }
  return [...sets.values()];
}

function casesSummary(list, sides, number) {
  const name = (key, rows) => named(list[key][rows[0]]);
  const query = (rows) => ({
    a: list.rows[sides.a],
    b: list.rows[sides.b],
    benchmark: name("benchmark", rows),
    attack: name("attack", rows),
  });
  const count = (title, isCounted) => {
    const of = (rows) => rows.filter(isCounted).length;
    return { name: title, number: true, of: (rows) => whole(of(rows)), sort: of };
  };
  const mean = (title, side) => {
    const of = (rows) => meanOf(rows.map((row) => list.values[sides[side]][row]));
    return {
      name: title,
      number: true,
      of: (rows) => fixed(of(rows)),
      sort: of,
      title: list.rows[sides[side]],
    };
  };
  const place = (rows) => ({ path: ["answers", number, list.stage], query: query(rows) });
  const columns = [
    {
      name: "Benchmark",
      of: (rows) => link(place(rows), name("benchmark", rows)),
      sort: (rows) => name("benchmark", rows),
    },
    { name: "Attack", of: (rows) => name("attack", rows), sort: (rows) => name("attack", rows) },
    count("Cases", () => true),
    mean("Mean of A", "a"),
    mean("Mean of B", "b"),
    ...["better", "worse", "same"].map((change) =>
      count(`B ${change}`, (row) => changeOf(list, row, sides) === change),
    ),
    ...(list.judges.length > 1 ? [count("Judges disagree", (row) => list.judges_differ[row])] : []),
    ...list.judges.flatMap((judge, index) => (judge ? [labelColumn(list, index, sides.b)] : [])),
  ];
  return el("div.scroll", {}, table(columns, casesBySet(list)));
}

function meanOf(values) {
  const there = values.filter((value) => value !== null);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

/** How often a judge gave each label to the second model. */
function labelColumn(list, judge, side) {
  const labels = (rows) => {
    const counts = new Map();
    for (const row of rows) {
      const label = list.labels[judge][side][row] ?? "no label";
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    return [...counts].map(([label, count]) => `${label} ${whole(count)}`).join(", ");
  };
  return { name: `${list.judges[judge]} of B`, of: labels };
}
