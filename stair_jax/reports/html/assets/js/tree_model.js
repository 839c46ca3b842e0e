// A search tree by columns, with what is folded and which nodes are of pairs.

const CHOSEN = 1;
const REJECTED = 2;

/** `record`: a Tree of the report. */
class Tree {
  constructor(record) {
    this.record = record;
    this.nodes = record.nodes;
    this.size = this.nodes.parent.length;
    this.parent = Int32Array.from(this.nodes.parent);
    this.depth = new Int32Array(this.size);
    this.folded = new Uint8Array(this.size);
    this.marks = new Uint8Array(this.size);
    this.own = new Int32Array(this.size); // 1: a tree that this one is compared with has it not
    this.pairs = record.pairs.filter((pair) => pair.every((node) => node < this.size));
    this.lines = new Array(this.size);
    this.linkChildren();
    for (const [chosen, rejected] of this.pairs) {
      this.marks[chosen] |= CHOSEN;
      this.marks[rejected] |= REJECTED;
    }
    this.range = extent(this.nodes.value) ?? [0, 0];
    this.mostVisits = (extent(this.nodes.visits) ?? [0, 1])[1];
  }

  /** Children stand in one array, those of a node from `first[node]` to `first[node + 1]`. */
  linkChildren() {
    this.first = new Int32Array(this.size + 1);
    for (let node = 1; node < this.size; node++) {
      this.first[this.parent[node] + 1] += 1;
      this.depth[node] = this.depth[this.parent[node]] + 1;
    }
    for (let node = 0; node < this.size; node++) this.first[node + 1] += this.first[node];
    const next = this.first.slice(0, this.size);
    this.below = new Int32Array(Math.max(0, this.size - 1));
    for (let node = 1; node < this.size; node++) this.below[next[this.parent[node]]++] = node;
  }

  childCount(node) {
    return this.first[node + 1] - this.first[node];
  }

  children(node) {
    return this.below.subarray(this.first[node], this.first[node + 1]);
  }

  /** Nodes from the first step down to this one. */
  path(node) {
    const found = [];
    for (let at = node; at > 0; at = this.parent[at]) found.push(at);
    return found.reverse();
  }

  /** The next node with the same parent, by -1 or 1; this one at the end. */
  sibling(node, by) {
    if (node === 0) return 0;
    const all = this.children(this.parent[node]);
    return all[clamp(all.indexOf(node) + by, 0, all.length - 1)];
  }

  /** The child with most visits; this node where there is none. */
  bestChild(node) {
    const visits = this.nodes.visits;
    return this.children(node).reduce(
      (best, child) => (best === node || visits[child] > visits[best] ? child : best),
      node,
    );
  }

  line(node) {
    if (node === 0) return "Prompt";
    return (this.lines[node] ??= shortStep(this.nodes.text[node]) || "(empty)");
  }

  /** Whether a node is shown: nothing above it is folded. */
  isShown(node) {
    for (let at = this.parent[node]; at >= 0; at = this.parent[at])
      if (this.folded[at]) return false;
    return true;
  }

  unfoldTo(node) {
    for (let at = this.parent[node]; at >= 0; at = this.parent[at]) this.folded[at] = 0;
  }

  /** Folds all nodes at a depth; -1: none. */
  foldBelow(depth) {
    for (let node = 0; node < this.size; node++) {
      this.folded[node] =
        depth >= 0 && this.depth[node] >= depth && this.childCount(node) > 0 ? 1 : 0;
    }
  }

  /** Shown nodes from top to bottom. */
  order() {
    const found = [];
    const left = [0];
    while (left.length) {
      const node = left.pop();
      found.push(node);
      if (this.folded[node]) continue;
      for (let at = this.first[node + 1] - 1; at >= this.first[node]; at--)
        left.push(this.below[at]);
    }
    return found;
  }

  /** Nodes whose text has this in it, in any case. */
  find(wanted) {
    const small = wanted.toLowerCase();
    const found = [];
    for (let node = 0; node < this.size; node++) {
      if (this.nodes.text[node].toLowerCase().includes(small)) found.push(node);
    }
    return found;
  }

  pairsOf(node) {
    return this.pairs.filter((pair) => pair.includes(node));
  }
}
