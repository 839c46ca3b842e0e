// What is known of a node: figures, the answer down to it, the judge's words, its pairs.

const OPEN_PAIRS = 3; // of a node, whose texts are shown at once

function nodeDetails(view, node) {
  const { tree } = view;
  const name = node === 0 ? "Prompt" : `Node ${node}`;
  return el(
    "div.details",
    {},
    el(
      "h2",
      {},
      name,
      " ",
      markOf(tree.marks[node]),
      tree.nodes.terminal[node] && el("small", {}, "ends the answer"),
    ),
    nodeFacts(tree, node),
    node === 0 ? promptBlock(tree.record) : el("section", {}, stepBlock(tree.nodes.text[node])),
    pairBlocks(view, node),
    judgeBlock(tree, node),
    node > 0 && pathBlock(view, node),
  );
}

function nodeFacts(tree, node) {
  const { nodes } = tree;
  const dash = (value) => (value === null || value === undefined ? null : figure(value));
  return facts([
    ["Visits", whole(nodes.visits[node])],
    ["Value", el("span", {}, chip(nodes.value[node], tree.range), figure(nodes.value[node]))],
    ["Reward", dash(nodes.reward[node])],
    ["Helpfulness", dash(nodes.helpfulness[node])],
    ["Safety", dash(nodes.safety[node])],
    ["Prior", node > 0 ? dash(nodes.prior[node]) : null],
    ["Missing", nodes.missing[node] || null],
    ["Children", tree.childCount(node) || null],
    ["Depth", tree.depth[node]],
  ]);
}

function promptBlock(record) {
  return el(
    "section",
    {},
    turnsBlock(record.turns, record.prompt),
    record.start && folded("All answers begin with", () => el("div.text", {}, record.start), true),
    record.said.map(({ question, text }) =>
      folded(`Judge, ${question}`, () => el("div.text.words", {}, text)),
    ),
  );
}

function judgeBlock(tree, node) {
  const words = tree.nodes.judge[node];
  if (words === null || words === undefined) return null;
  return el(
    "section",
    {},
    folded("Judged answer", () => el("div.text.words", {}, words), true),
  );
}

function pairBlocks(view, node) {
  return view.tree.pairsOf(node).map((pair, index) => {
    const [chosen, rejected] = pair;
    const other = node === chosen ? rejected : chosen;
    const summary = `${node === chosen ? "Chosen over" : "Rejected for"} node ${other}`;
    const block = folded(summary, () => pairSides(view.tree, pair), index < OPEN_PAIRS);
    const jump = button(`Go to node ${other}`, () => view.select(other));
    return el("section.pair", {}, block, jump);
  });
}

/** The two steps of a pair beside one another. */
function pairSides(tree, [chosen, rejected]) {
  const texts = [chosen, rejected].map((node) => plainStep(tree.nodes.text[node]));
  const said = (node) =>
    `value ${figure(tree.nodes.value[node])}, ${plural(tree.nodes.visits[node], "visit")}`;
  return sidesBlock(texts, [said(chosen), said(rejected)]);
}

/** Two texts with what differs, under the figures of each. */
function sidesBlock([better, worse], [ofBetter, ofWorse]) {
  const [left, right] = diffOf(better, worse);
  const side = (name, said, parts, kind) =>
    el(
      "div.side",
      {},
      el("h3", {}, markOf(kind), name, el("small", {}, said)),
      el("div.text", {}, diffNodes(parts, name)),
    );
  return el(
    "div.sides",
    {},
    side("chosen", ofBetter, left, CHOSEN),
    side("rejected", ofWorse, right, REJECTED),
  );
}

function pathBlock(view, node) {
  const { tree } = view;
  const above = tree.path(node).slice(0, -1);
  if (!above.length) return null;
  const step = (at) =>
    el(
      "li",
      {},
      button(`Node ${at}`, () => view.select(at), { class: "plain" }),
      el("small", {}, ` value ${figure(tree.nodes.value[at])}`),
      stepBlock(tree.nodes.text[at]),
    );
  return el(
    "section",
    {},
    folded(`Steps before (${above.length})`, () => el("ol.path", {}, above.map(step)), true),
  );
}
