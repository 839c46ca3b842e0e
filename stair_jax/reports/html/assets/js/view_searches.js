// Statistics of searches.

async function searchesView({ number }) {
  const searches = await readOr(`searches/${number}`, []);
  return el(
    "div.page",
    {},
    el("h1", {}, "Searches"),
    searches.map((search) => searchBlock(search, number)),
  );
}

function searchBlock(search, number) {
  const kinds = Object.entries(search.kinds);
  return el(
    "section",
    {},
    el(
      "h2",
      {},
      search.stage,
      " ",
      link({ path: ["trees", number], query: { stage: search.stage } }, "trees"),
    ),
    facts([
      ["Trees", whole(search.trees)],
      ...kinds.map(([kind, count]) => [`of ${kind}`, whole(count)]),
      ["Iterations", whole(search.iterations)],
      ["Tokens sampled", whole(search.generated_tokens)],
      ["Tokens prefilled", whole(search.prefilled_tokens)],
    ]),
    el("div.charts", {}, search.histograms.map(histogram)),
    el(
      "div.columns",
      {},
      countsTable("Events", search.counts),
      countsTable("Prompts without a tree", search.skipped),
      search.pairs.map((pairs) =>
        countsTable(
          `Candidates for pairs, ${pairs.stage}/${pairs.file}`,
          pairs.counts,
          pairs.regret,
        ),
      ),
      probeTable(search.probe),
    ),
    search.replies.length > 0 &&
      folded(`Replies of the judge to the probe (${search.replies.length})`, () =>
        el(
          "ol.replies",
          {},
          search.replies.map((reply) => el("li", {}, el("div.text.words", {}, reply))),
        ),
      ),
  );
}

function countsTable(caption, counts, means = {}) {
  const rows = [
    ...Object.entries(counts).map(([name, count]) => [name, whole(count)]),
    ...Object.entries(means).map(([kind, mean]) => [`regret of choices, ${kind}`, figure(mean)]),
  ];
  if (!rows.length) return null;
  const columns = [
    { name: "", of: ([name]) => name.replaceAll("_", " ") },
    { name: "", number: true, of: ([, value]) => value },
  ];
  return table(columns, rows, { caption, classes: ".small" });
}

function probeTable(probe) {
  if (!probe.length) return null;
  const columns = [
    { name: "Judge", of: ({ what }) => what },
    { name: "Area under the curve", number: true, of: ({ value }) => figure(value) },
    {
      name: "95 % interval",
      number: true,
      of: ({ low, high }) => `${figure(low)} to ${figure(high)}`,
    },
  ];
  return table(columns, probe, { caption: "Probe of the judge", classes: ".small" });
}
