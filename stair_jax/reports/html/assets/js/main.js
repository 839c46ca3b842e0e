// The frame of the page: what is shown where the fragment says, and the keys that hold everywhere.

const VIEWS = [
  { name: "run", label: "Run", make: runView, needs: null },
  { name: "evaluation", label: "Evaluation", make: evaluationView, needs: "evaluations" },
  { name: "answers", label: "Answers", make: answersView, needs: "cases" },
  { name: "curves", label: "Curves", make: curvesView, needs: "curves" },
  { name: "searches", label: "Searches", make: searchesView, needs: "searches" },
  { name: "trees", label: "Trees", make: treesView, needs: "trees" },
  { name: "tree", make: treePage, needs: "trees", under: "trees" },
  { name: "pairs", label: "Pairs", make: pairsView, needs: "pairs" },
  { name: "both", label: "Side by side", make: bothView, needs: "both" },
];
const KEYS = [
  ["1 to 9", "the pages at the top"],
  ["/", "search"],
  ["[ and ]", "previous and next tree"],
  ["Arrows", "along a list or a tree"],
  ["Enter", "open"],
  ["Space", "fold or unfold a node"],
  ["+ and \u2212", "zoom"],
  ["F", "fit the tree"],
  ["Home, End", "first and last; the root"],
  ["Esc", "up, from a tree to the list"],
  ["?", "this list"],
];
const SCHEMA = 1; // of the blocks of data
const report = { head: null };
let current = { close: () => {} };
let turn = 0;

function hasBlock(name) {
  return report.head.blocks.includes(name);
}

/** A block, or what stands for it where this report has none. */
async function readOr(name, otherwise) {
  return hasBlock(name) ? read(name) : otherwise;
}

function views(number) {
  const isThere = ({ needs }) =>
    needs === null || hasBlock(needs) || hasBlock(`${needs}/${number}`);
  return VIEWS.filter((view) => view.label && isThere(view));
}

/** Shows what the fragment says. */
async function showPlace() {
  const mine = ++turn;
  const {
    path: [name, ...rest],
  } = here();
  const view = VIEWS.find((one) => one.name === name) ?? VIEWS[0];
  const isBoth = view.name === "both";
  const number = clamp(
    Math.trunc(Number(isBoth ? 0 : rest[0])) || 0,
    0,
    report.head.runs.length - 1,
  );
  showBar(view, number);
  let shown;
  try {
    const found = await view.make({
      number,
      run: report.head.runs[number],
      rest: isBoth ? rest : rest.slice(1),
      withOther,
    });
    shown = found instanceof Node ? { node: found } : found;
  } catch (error) {
    shown = { node: el("div.page", {}, el("p.note", { role: "alert" }, error.message)) };
  }
  if (mine !== turn) return shown.close?.();
  current.close?.();
  current = shown;
  const main = document.getElementById("main");
  main.replaceChildren(shown.node);
  main.scrollTop = 0;
  if (shown.opened) shown.opened();
  else main.focus({ preventScroll: true });
  performance.mark("page shown");
}

/** The numbers of a run and of the other one, where there are two. */
function withOther(number) {
  return report.head.runs.length > 1 ? [number, 1 - number] : [number];
}

function showBar(view, number) {
  const { title, runs } = report.head;
  const active = view.under ?? view.name;
  const pages = views(number).map(({ name, label }) =>
    el(
      "a",
      {
        href: hrefOf({ path: name === "both" ? [name] : [name, number] }),
        "aria-current": name === active ? "page" : null,
      },
      label,
    ),
  );
  const chooser =
    runs.length > 1 &&
    active !== "both" &&
    el(
      "span.segments",
      { role: "group", "aria-label": "Run" },
      runs.map((run, index) =>
        button(run.name, () => go({ path: [active, index] }), {
          "aria-pressed": String(index === number),
        }),
      ),
    );
  document.title = visible(title);
  document.getElementById("bar").replaceChildren(
    button("Skip to content", () => document.getElementById("main").focus(), { class: "skip" }),
    el("h1.title", {}, title),
    el("nav", { "aria-label": "Pages" }, pages),
    chooser || "",
    button("?", showKeys, { title: "Keys", "aria-label": "Keys", class: "keysbutton" }),
  );
}

function showKeys() {
  const rows = KEYS.map(([key, said]) =>
    el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, said)),
  );
  const { version, written } = report.head;
  const box = el(
    "dialog",
    { "aria-label": "Keys", onclose: () => box.remove() },
    el("h2", {}, "Keys"),
    el("dl.facts", {}, rows),
    el("p.dim", {}, `Made by stair_jax ${version}, ${written}.`),
    button("Close", () => box.close()),
  );
  document.body.append(box);
  box.showModal();
}

function isTyping({ target }) {
  return target.matches("input, select, textarea");
}

function pageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape" && !document.querySelector("dialog")) return upOrOut(event);
  if (isTyping(event)) return;
  const pages = document.querySelectorAll("#bar nav a");
  if (event.key === "?") showKeys();
  else if (event.key === "/") document.querySelector("#main input[type=search]")?.focus();
  else if (/^[1-9]$/.test(event.key)) pages[Number(event.key) - 1]?.click();
  else if ("[]".includes(event.key))
    document.querySelector(`button[data-key="${event.key}"]`)?.click();
  else return;
  event.preventDefault();
}

/** Out of a field, or from a tree to its list. */
function upOrOut(event) {
  if (isTyping(event)) document.querySelector("#main canvas, #main .windowed")?.focus();
  else document.querySelector("#main a.up")?.click();
}

async function start() {
  try {
    report.head = await read("head");
    if (report.head.schema !== SCHEMA)
      throw new Error(`The data are of schema ${report.head.schema}; this page shows ${SCHEMA}.`);
  } catch (error) {
    document.getElementById("main").replaceChildren(el("p.note", { role: "alert" }, error.message));
    return;
  }
  addEventListener("hashchange", showPlace);
  addEventListener("keydown", pageKey);
  await showPlace();
}

start();
