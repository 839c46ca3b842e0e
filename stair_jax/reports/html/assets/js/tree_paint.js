// Draws a tree on its canvas: of each column only what is in sight.

const CURVED = 6; // pixels between rows from which on edges are curves and nodes are discs
const ONE_LINE = 15;
const TWO_LINES = 27;

function paintTree(view) {
  const { pen, width, height, ratio, colours } = view;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = colours.ground;
  pen.fillRect(0, 0, width, height);
  const seen = inSight(view);
  paintEdges(view, seen);
  paintPath(view);
  paintPair(view);
  paintNodes(view, seen);
  if (ROW * view.down >= ONE_LINE && view.across > 0.35) paintTexts(view, seen);
}

/** The nodes in sight, of several on a line of pixels the first, with one more on each side. */
function inSight(view) {
  const { layout, width, height, down, y } = view;
  const step = ROW * down;
  const found = [];
  layout.columns.forEach((column, depth) => {
    const x = view.xOf(depth);
    if (x < -COLUMN * view.across || x > width + COLUMN * view.across) return;
    const start = Math.max(0, firstFrom(column, layout.row, (-step - y) / step) - 1);
    let last = -Infinity;
    for (let at = start; at < column.length; at++) {
      const line = layout.row[column[at]] * step + y;
      if (line - last >= 1) found.push(column[at]);
      else continue;
      last = line;
      if (line > height + step) break;
    }
  });
  return found;
}

function traceEdge(view, node) {
  const { pen, tree } = view;
  const [fromX, fromY] = [view.xOf(tree.depth[node] - 1), view.yOf(tree.parent[node])];
  const [x, y] = [view.xOf(tree.depth[node]), view.yOf(node)];
  pen.moveTo(fromX, fromY);
  if (ROW * view.down < CURVED) return pen.lineTo(x, y);
  const start = x - Math.min(40, (x - fromX) / 2);
  pen.lineTo(start - 1, fromY);
  pen.bezierCurveTo((start + x) / 2, fromY, start, y, x, y);
}

function paintEdges(view, seen) {
  const { pen, colours } = view;
  pen.lineWidth = 1;
  pen.strokeStyle = colours.line;
  pen.beginPath();
  for (const node of seen) if (node) traceEdge(view, node);
  pen.stroke();
}

function paintPath(view) {
  const { pen, colours, tree } = view;
  pen.lineWidth = 2;
  pen.strokeStyle = colours.accent;
  pen.beginPath();
  for (const node of tree.path(view.selected)) traceEdge(view, node);
  pen.stroke();
}

/** A dashed line between the two sides of the pair that is looked at. */
function paintPair(view) {
  if (!view.pair) return;
  const { pen, colours, tree } = view;
  if (!view.pair.every((node) => tree.isShown(node))) return;
  const [top, bottom] = view.pair.map((node) => view.yOf(node));
  const x = view.xOf(tree.depth[view.pair[0]]);
  pen.strokeStyle = colours.text;
  pen.lineWidth = 1.5;
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(x, top);
  pen.bezierCurveTo(x - 30, top, x - 30, bottom, x, bottom);
  pen.stroke();
  pen.setLineDash([]);
}

function paintNodes(view, seen) {
  const { pen, tree, colours } = view;
  const byShade = Array.from({ length: SHADES + 1 }, () => []);
  for (const node of seen) byShade[shadeOf(tree.nodes.value[node], tree.range) + 1].push(node);
  byShade.forEach((nodes, index) => {
    if (!nodes.length) return;
    pen.fillStyle = index ? colours.shades[index - 1] : colours.none;
    pen.beginPath();
    for (const node of nodes) traceNode(view, node);
    pen.fill();
  });
  if (ROW * view.down < CURVED) return;
  for (const node of seen) paintMarks(view, node);
}

function radiusOf(view, node) {
  const share = Math.log1p(view.tree.nodes.visits[node]) / Math.log1p(view.tree.mostVisits || 1);
  return Math.min(3.5 + 5 * share, (ROW * view.down) / 2.4);
}

function traceNode(view, node) {
  const [x, y] = [view.xOf(view.tree.depth[node]), view.yOf(node)];
  if (ROW * view.down < CURVED)
    return view.pen.rect(x - 3, y - 0.5, 6, Math.max(1, ROW * view.down));
  const radius = radiusOf(view, node);
  view.pen.moveTo(x + radius, y);
  view.pen.arc(x, y, radius, 0, 2 * Math.PI);
}

/** Rings: of the selected node, of what was searched for, of ends; + and - of pairs. */
function paintMarks(view, node) {
  const { pen, tree, colours } = view;
  const [x, y, radius] = [view.xOf(tree.depth[node]), view.yOf(node), radiusOf(view, node)];
  const ring = (colour, distance, thickness) => {
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.beginPath();
    pen.arc(x, y, radius + distance, 0, 2 * Math.PI);
    pen.stroke();
  };
  if (tree.nodes.terminal[node]) ring(colours.text, 0, 1.25);
  if (view.found.has(node)) ring(colours.accent, 2.5, 1.5);
  if (node === view.selected) ring(colours.accent, 3, 2.5);
  if (tree.folded[node]) paintFold(view, x + radius, y);
  const mark = tree.marks[node];
  if (!mark || radius < 3) return;
  pen.strokeStyle = colours.ground;
  pen.lineWidth = 1.75;
  pen.beginPath();
  pen.moveTo(x - radius * 0.6, y);
  pen.lineTo(x + radius * 0.6, y);
  if (mark & CHOSEN) {
    pen.moveTo(x, y - radius * 0.6);
    pen.lineTo(x, y + radius * 0.6);
  }
  pen.stroke();
}

function paintFold(view, x, y) {
  view.pen.fillStyle = view.colours.dim;
  view.pen.beginPath();
  view.pen.moveTo(x + 2, y - 4);
  view.pen.lineTo(x + 7, y);
  view.pen.lineTo(x + 2, y + 4);
  view.pen.fill();
}

function paintTexts(view, seen) {
  const { pen, tree, colours } = view;
  const size = clamp(12 * Math.sqrt(view.down), 10, 14);
  const hasTwo = ROW * view.down >= TWO_LINES;
  const letters = Math.floor((COLUMN * view.across - 58) / (size * 0.5));
  pen.textBaseline = "middle";
  for (const node of seen) {
    const x = view.xOf(tree.depth[node]) + radiusOf(view, node) + 9;
    const y = view.yOf(node);
    pen.font = `${node === view.selected ? 600 : 400} ${size}px ${colours.font}`;
    pen.fillStyle = tree.own[node] ? colours.accent : colours.text;
    pen.fillText(cut(tree.line(node), letters), x, y - size * 0.62 - 1);
    if (!hasTwo) continue;
    pen.font = `${size * 0.9}px ${colours.font}`;
    pen.fillStyle = colours.dim;
    pen.fillText(figuresOf(tree, node), x, y + size * 0.62 + 2);
  }
}

function cut(text, letters) {
  const seen = visible(text);
  return seen.length > letters ? `${seen.slice(0, Math.max(1, letters - 1))}\u2026` : seen;
}

function figuresOf(tree, node) {
  const { visits, value, reward, terminal } = tree.nodes;
  const said = [`n ${visits[node]}`, `v ${fixed(value[node])}`];
  if (terminal[node] && reward[node] !== null) said.push(`r ${fixed(reward[node])}`);
  return said.join("  ");
}
