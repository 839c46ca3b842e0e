// A run: its stages and settings.

const STATES = { done: "\u2713 done", "under way": "\u25d0 under way", "to do": "\u25cb to do" };

async function runView({ run, number }) {
  const stages = await readOr(`stages/${number}`, []);
  const seconds = stages.reduce((sum, stage) => sum + (stage.seconds ?? 0), 0);
  return el(
    "div.page",
    {},
    el("h1", {}, run.name),
    facts([
      ["Folder", el("code", {}, run.folder)],
      ["Seed", run.seed],
      ["Stages", whole(stages.length)],
      ["Time of all", seconds ? duration(seconds) : null],
      ["Trees", whole(run.trees)],
      ["Pairs", whole(run.pairs)],
      ["Cases", whole(run.cases)],
    ]),
    report.head.notes.map((note) => el("p.note", {}, note)),
    stages.length > 0 && el("section", {}, el("h2", {}, "Stages"), stageTable(stages)),
    el(
      "section",
      {},
      el("h2", {}, "Stages in detail"),
      stages.map((stage) => folded(`${stage.name} (${stage.kind})`, () => stageDetails(stage))),
    ),
    el("section", {}, el("h2", {}, "Settings of the run"), settingsBlock(run.config)),
  );
}

function stageTable(stages) {
  const longest = Math.max(...stages.map((stage) => stage.seconds ?? 0), 1);
  const any = (of) => stages.some((stage) => Boolean(of(stage)));
  const columns = [
    { name: "Stage", of: (stage) => stage.name, sort: (stage) => stage.name },
    { name: "Kind", of: (stage) => stage.kind, sort: (stage) => stage.kind },
    {
      name: "State",
      of: (stage) => STATES[stage.state] ?? stage.state,
      sort: (stage) => stage.state,
    },
    {
      name: "Time",
      number: true,
      of: (stage) => duration(stage.seconds),
      sort: (stage) => stage.seconds,
    },
    {
      name: el("span.unseen", {}, "Share of the longest"),
      of: (stage) => stage.seconds !== null && barOf(stage.seconds / longest),
    },
    ...(any((stage) => stage.compile_seconds)
      ? [
          {
            name: "Compiling",
            number: true,
            of: (stage) => duration(stage.compile_seconds),
            sort: (stage) => stage.compile_seconds,
          },
        ]
      : []),
    ...(any((stage) => stage.device)
      ? [
          {
            name: "Devices",
            of: (stage) => (stage.devices ? `${stage.devices} \u00d7 ${stage.device}` : stage.device),
          },
        ]
      : []),
    {
      name: "Size",
      number: true,
      of: (stage) => sizeOf(stage.bytes),
      sort: (stage) => stage.bytes,
    },
    { name: "Reads", of: (stage) => el("span.dim", {}, stage.inputs.join(", ")) },
  ];
  return el("div.scroll", {}, table(columns, stages, { classes: ".stages" }));
}

function barOf(share) {
  const bar = el("span.bar");
  bar.style.width = `${(100 * share).toFixed(1)}%`;
  return el("span.track", { "aria-hidden": "true" }, bar);
}

function sizeOf(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, at] = [bytes, 0];
  for (; value >= 1000 && at < units.length - 1; at++) value /= 1000;
  return `${figure(value)} ${units[at]}`;
}

function stageDetails(stage) {
  return el(
    "div",
    {},
    stage.summary && el("pre", {}, stage.summary),
    settingsBlock(stage.settings),
  );
}

/** Settings as [path, value], the path with points. */
function flattened(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, JSON.stringify(value)]];
  const entries = Object.entries(value);
  const isPlain =
    Array.isArray(value) && value.every((one) => one === null || typeof one !== "object");
  if (isPlain || !entries.length) return [[path, JSON.stringify(value)]];
  return entries.flatMap(([key, inner]) => flattened(inner, path ? `${path}.${key}` : key));
}

function settingsBlock(settings) {
  const rows = flattened(settings ?? {}).filter(([path]) => path);
  if (!rows.length) return el("p.dim", {}, "None.");
  const body = el("div.settings");
  const show = (wanted) =>
    body.replaceChildren(
      ...rows
        .filter((row) => row.some((text) => hasText(text, wanted)))
        .map(([path, value]) => el("div", {}, el("code", {}, path), el("code.value", {}, value))),
    );
  show("");
  const field = el("input", {
    type: "search",
    placeholder: "Find a setting",
    "aria-label": "Find a setting",
    oninput: () => show(field.value),
  });
  return el("div", {}, rows.length > 12 && field, body);
}
