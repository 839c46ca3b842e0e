// Training curves, and those of searches over their trees; two runs in one chart.

async function curvesView({ number, withOther }) {
  const all = await Promise.all(
    withOther(number).map(async (run) => ({ run, curves: await readOr(`curves/${run}`, []) })),
  );
  const [{ curves }] = all;
  const state = { weight: Number(here().query.smooth ?? 0), wanted: here().query.q ?? "" };
  const body = el("div");
  const draw = () =>
    body.replaceChildren(
      ...curves.map((curve, index) => curveSection(curve, all, state, index < 3)),
    );
  const controls = el(
    "form.filters",
    { onsubmit: (event) => event.preventDefault() },
    el(
      "label",
      {},
      el("span", {}, "Smoothing"),
      el("input", {
        type: "range",
        min: 0,
        max: 0.98,
        step: 0.02,
        value: state.weight,
        oninput: (event) => kept(state, draw, "weight", Number(event.target.value), "smooth"),
      }),
    ),
    el(
      "label",
      {},
      el("span", {}, "Series"),
      el("input", {
        type: "search",
        value: state.wanted,
        oninput: (event) => kept(state, draw, "wanted", event.target.value, "q"),
      }),
    ),
    all.length > 1 &&
      el(
        "span.keys",
        {},
        all.map(({ run }, index) => el(`span.key.series${index}`, {}, report.head.runs[run].name)),
      ),
  );
  draw();
  return el(
    "div.page",
    {},
    el("h1", {}, "Curves"),
    controls,
    curves.length ? body : el("p.dim", {}, "No stage has written any."),
  );
}

function kept(state, draw, name, value, key) {
  state[name] = value;
  remember({ [key]: value || "" });
  draw();
}

function curveSection(curve, all, state, isOpen) {
  const names = Object.keys(curve.series).filter((name) => hasText(name, state.wanted));
  const said = [
    `${curve.stage} (${curve.kind})`,
    curve.clock && "by the clock",
    curve.every > 1 && `means of ${curve.every} steps`,
  ];
  const charts = () =>
    el(
      "div.charts",
      {},
      names.map((name) => lineChart(name, linesOf(curve, all, name), state.weight)),
    );
  const node = folded(said.filter(Boolean).join(", "), charts, isOpen);
  node.classList.add("section");
  return names.length ? node : "";
}

/** The series of a stage, of the same stage in the other run too. */
function linesOf(curve, all, name) {
  return all.flatMap(({ run, curves }) => {
    const same = curves.find(({ stage, clock }) => stage === curve.stage && clock === curve.clock);
    const values = same?.series[name];
    return values ? [{ name: report.head.runs[run].name, x: same.x, y: values }] : [];
  });
}
