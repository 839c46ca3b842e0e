// Charts as SVG: lines over steps, histograms, figures with their intervals.

const CHART = { width: 380, height: 190, left: 46, right: 8, top: 8, bottom: 24 };

/** About so many round numbers in a range; whole ones where its ends lie between such. */
function ticksOf([least, most], wanted = 4) {
  const span = most - least || 1;
  const size = 10 ** Math.floor(Math.log10(span / wanted));
  const fine =
    [1, 2, 5, 10].map((one) => one * size).find((one) => span / one <= wanted) ?? size * 10;
  const step = Math.abs(least % 1) === 0.5 ? Math.max(1, fine) : fine;
  const found = [];
  for (let tick = Math.ceil(least / step - 1e-9); tick * step <= most + step * 1e-9; tick++) {
    found.push(tick * step);
  }
  return found;
}

function scaleOf([least, most], from, to) {
  const span = most - least || 1;
  return (value) => from + ((value - least) / span) * (to - from);
}

function padded([least, most]) {
  const room = (most - least || Math.abs(most) || 1) * 0.06;
  return [least - room, most + room];
}

/** Axes with their figures; [elements, x of a value, y of a value]. */
function axes(ranges, { width, height, left, right, top, bottom } = CHART) {
  const x = scaleOf(ranges[0], left, width - right);
  const y = scaleOf(ranges[1], height - bottom, top);
  const across = ticksOf(ranges[0]).map((tick) =>
    svg("text", { x: x(tick), y: height - 8, "text-anchor": "middle" }, figure(tick)),
  );
  const down = ticksOf(ranges[1]).map((tick) => [
    svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "rule" }),
    svg("text", { x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, figure(tick, 2)),
  ]);
  return [[...down.flat(), ...across], x, y];
}

/** Moving mean with exponential weights; 0: the values themselves. */
function smoothed(values, weight) {
  if (!weight) return values;
  let mean = null;
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
}

/** A chart of lines {name, x, y}; `weight`: of smoothing. */
function lineChart(title, lines, weight = 0) {
  const shown = lines.map((line) => ({ ...line, smooth: smoothed(line.y, weight) }));
  const ranges = [extent(shown.flatMap((line) => line.x)), extent(shown.flatMap((line) => line.y))];
  if (!ranges[0] || !ranges[1])
    return el("figure.chart", {}, el("figcaption", {}, title), el("p.dim", {}, "No values."));
  ranges[1] = padded(ranges[1]);
  const [grid, x, y] = axes(ranges);
  const drawn = shown.flatMap((line, index) => [
    weight > 0 &&
      svg("path", { d: pathOf(line.x, line.y, x, y), class: `curve faint series${index}` }),
    svg("path", { d: pathOf(line.x, line.smooth, x, y), class: `curve series${index}` }),
    lonely(line.smooth).map((at) =>
      svg("circle", {
        cx: x(line.x[at]),
        cy: y(line.smooth[at]),
        r: 3,
        class: `dot series${index}`,
      }),
    ),
  ]);
  const readout = el("output.readout");
  const cursor = svg("line", { class: "cursor", y1: CHART.top, y2: CHART.height - CHART.bottom });
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${CHART.width} ${CHART.height}`,
      role: "img",
      "aria-label": `${title} over steps`,
    },
    grid,
    drawn,
    cursor,
  );
  const rest = () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = shown.map((line) => lastOf(line)).join("  ");
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * CHART.width;
    readout.textContent = visible(readingOf(shown, at, x));
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
  });
  picture.addEventListener("pointerleave", rest);
  rest();
  return el("figure.chart", {}, el("figcaption", {}, title, readout), picture);
}

function lastOf(line) {
  return figure(line.smooth.findLast((value) => value !== null && value !== undefined));
}

function readingOf(lines, at, x) {
  return lines
    .map(({ name, x: steps, smooth }) => {
      let best = 0;
      steps.forEach((step, index) => {
        if (Math.abs(x(step) - at) < Math.abs(x(steps[best]) - at)) best = index;
      });
      const said = `${figure(smooth[best])} at ${figure(steps[best])}`;
      return lines.length > 1 ? `${name} ${said}` : said;
    })
    .join("  ");
}

/** Places of values without a neighbour, of which no line is drawn. */
function lonely(values) {
  const isThere = (at) => values[at] !== null && values[at] !== undefined;
  return [...values.keys()].filter((at) => isThere(at) && !isThere(at - 1) && !isThere(at + 1));
}

/** A path that is broken where values are missing. */
function pathOf(steps, values, x, y) {
  let isOpen = false;
  return values
    .map((value, index) => {
      if (value === null || value === undefined) {
        isOpen = false;
        return "";
      }
      const letter = isOpen ? "L" : "M";
      isOpen = true;
      return `${letter}${x(steps[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    })
    .join("");
}

/** Bars over bins, by kind on top of one another. */
function histogram({ name, edges, counts }) {
  const kinds = Object.keys(counts);
  const totals = edges
    .slice(1)
    .map((_, bin) => kinds.reduce((sum, kind) => sum + counts[kind][bin], 0));
  const [grid, x, y] = axes([
    [edges[0], edges.at(-1)],
    [0, Math.max(1, ...totals)],
  ]);
  const bars = totals.flatMap((_, bin) => {
    let below = 0;
    return kinds.map((kind, index) => {
      const [from, to] = [below, below + counts[kind][bin]];
      below = to;
      const box = {
        x: x(edges[bin]) + 0.5,
        width: Math.max(0.5, x(edges[bin + 1]) - x(edges[bin]) - 1),
      };
      const ends = `${figure(edges[bin])} to ${figure(edges[bin + 1])}`;
      const label = `${ends}, ${kind}: ${whole(to - from)}`;
      return svg(
        "rect",
        { ...box, y: y(to), height: y(from) - y(to), class: `bar series${index}` },
        svg("title", {}, label),
      );
    });
  });
  const keys = kinds.map((kind, index) => el(`span.key.series${index}`, {}, kind));
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": name },
    grid,
    bars,
  );
  return el("figure.chart", {}, el("figcaption", {}, name, el("span.keys", {}, keys)), picture);
}

/** Figures with their intervals, a line each: [{name, value, low, high, said}]. */
function intervalChart(title, rows) {
  const range = extent(rows.flatMap(({ value, low, high }) => [value, low, high]));
  if (!range) return null;
  const size = {
    width: 620,
    height: rows.length * 20 + 30,
    left: 200,
    right: 14,
    top: 4,
    bottom: 26,
  };
  const x = scaleOf(padded(range), size.left, size.width - size.right);
  const bottom = size.height - size.bottom;
  const rules = ticksOf(padded(range), 6).flatMap((tick) => [
    svg("line", { x1: x(tick), x2: x(tick), y1: size.top, y2: bottom, class: "rule" }),
    svg("text", { x: x(tick), y: size.height - 8, "text-anchor": "middle" }, figure(tick)),
  ]);
  const drawn = rows.flatMap(({ name, value, low, high, said }, index) => {
    const y = size.top + 10 + index * 20;
    const label = svg(
      "text",
      { x: size.left - 10, y: y + 4, "text-anchor": "end" },
      name.length > 30 ? `${name.slice(0, 29)}\u2026` : name,
      svg("title", {}, name),
    );
    if (value === null || value === undefined) return [label];
    const bar =
      low !== null &&
      high !== null &&
      svg("line", { x1: x(low), x2: x(high), y1: y, y2: y, class: "interval" });
    return [
      label,
      bar,
      svg("circle", { cx: x(value), cy: y, r: 4, class: "point" }, svg("title", {}, said)),
    ];
  });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": title },
    rules,
    drawn,
  );
  return el("figure.chart.wide", {}, el("figcaption", {}, title), picture);
}
