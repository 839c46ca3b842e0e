// A tree on a canvas: pan by dragging, zoom by the wheel, select by a click or by keys.

const ROW = 36; // pixels at full size
const COLUMN = 230;
const MOST_DOWN = 1.5;
const MOST_ACROSS = 2.2;
const LEAST_ACROSS = 0.15;
const EDGE = 24; // pixels around the tree when it fits

class TreeCanvas {
  /** `onselect` is told of the node that the reader chooses. */
  constructor(tree, onselect) {
    this.tree = tree;
    this.onselect = onselect;
    this.selected = 0;
    this.pair = null;
    this.found = new Set();
    this.across = 1;
    this.down = 1;
    this.x = this.y = 0;
    this.canvas = el("canvas", {
      tabindex: 0,
      role: "application",
      "aria-label":
        "Search tree. Arrow keys move along it, space folds, plus and minus zoom, F fits.",
    });
    this.node = el("div.canvas", {}, this.canvas);
    this.pen = this.canvas.getContext("2d");
    this.relayout();
    this.listen();
  }

  relayout() {
    this.layout = layoutOf(this.tree);
    this.draw();
  }

  listen() {
    watchPointer(this);
    this.canvas.addEventListener("keydown", (event) => treeKey(this, event));
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.node);
    this.recolour = () => {
      this.colours = palette();
      this.draw();
    };
    darkMode.addEventListener("change", this.recolour);
    this.colours = palette();
  }

  close() {
    this.sizes.disconnect();
    darkMode.removeEventListener("change", this.recolour);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (!width || !height) return;
    const isFirst = this.width === undefined;
    [this.width, this.height, this.ratio] = [width, height, devicePixelRatio || 1];
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    if (isFirst) this.start();
    this.paint();
  }

  /** All of it; around the selected node where texts are too small so. */
  start() {
    this.fit();
    if (this.down < 0.5 && this.selected) this.zoom(0.9 / this.down);
  }

  fit() {
    const { columns, least, most } = this.layout;
    this.down = Math.min((this.height - 2 * EDGE) / ((most - least + 1) * ROW), 1);
    this.across = clamp(
      (this.width - 2 * EDGE) / (columns.length * COLUMN),
      LEAST_ACROSS,
      MOST_ACROSS,
    );
    this.x = EDGE;
    const middle = ((least + most) / 2) * ROW * this.down;
    this.y = this.height / 2 - middle;
    this.draw();
  }

  leastScale() {
    const rows = this.layout.most - this.layout.least + 1;
    return Math.min(0.2, (this.height - 2 * EDGE) / (rows * ROW));
  }

  /** Without a point it zooms around the selected node. */
  zoom(by, atX, atY) {
    if (atX === undefined) {
      this.reveal(this.selected);
      [atX, atY] = [this.xOf(this.tree.depth[this.selected]), this.yOf(this.selected)];
    }
    const down = clamp(this.down * by, this.leastScale(), MOST_DOWN);
    const across = clamp(this.across * by, LEAST_ACROSS, Math.max(1.2, this.across));
    this.y = atY - (atY - this.y) * (down / this.down);
    this.x = atX - (atX - this.x) * (across / this.across);
    [this.down, this.across] = [down, across];
    this.draw();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  }

  xOf(depth) {
    return depth * COLUMN * this.across + this.x;
  }

  yOf(node) {
    return this.layout.row[node] * ROW * this.down + this.y;
  }

  /** The node under a point of the canvas; -1: there is none. */
  nodeAt(x, y) {
    const depth = Math.floor((x - this.x + 12) / (COLUMN * this.across));
    const column = this.layout.columns[depth];
    if (!column) return -1;
    const node = nearest(column, this.layout.row, (y - this.y) / (ROW * this.down));
    return Math.abs(this.yOf(node) - y) <= Math.max(8, (ROW * this.down) / 2) ? node : -1;
  }

  /** Moves what is shown no further than it takes for the node to be seen. */
  reveal(node) {
    if (this.width === undefined) return;
    const [x, y] = [this.xOf(this.tree.depth[node]), this.yOf(node)];
    const right = Math.max(EDGE, this.width - COLUMN * this.across);
    const bottom = this.height - 2 * EDGE;
    this.pan(clamp(x, EDGE, right) - x, clamp(y, 2 * EDGE, bottom) - y);
  }

  select(node, isTold = true) {
    this.selected = node;
    if (!this.tree.isShown(node)) {
      this.tree.unfoldTo(node);
      this.relayout();
    }
    this.reveal(node);
    this.draw();
    if (isTold) this.onselect(node);
  }

  fold(node) {
    if (!this.tree.childCount(node)) return;
    const before = this.yOf(node);
    this.tree.folded[node] ^= 1;
    this.relayout();
    this.pan(0, before - this.yOf(node));
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => this.paint());
  }

  paint() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = undefined;
    if (this.width === undefined) return;
    paintTree(this);
    performance.mark("tree painted");
  }
}
