// The pointer and the keys over a tree's canvas.

const MOVED = 4; // pixels from which on a press is a drag

function watchPointer(view) {
  let from = null;
  const place = (event) => {
    const box = view.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  view.canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = { at: place(event), moved: false };
    view.canvas.setPointerCapture(event.pointerId);
  });
  view.canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = place(event);
    const [dx, dy] = [x - from.at[0], y - from.at[1]];
    if (!from.moved && Math.hypot(dx, dy) < MOVED) return;
    from = { at: [x, y], moved: true };
    view.pan(dx, dy);
  });
  view.canvas.addEventListener("pointerup", (event) => {
    const node = from && !from.moved ? view.nodeAt(...place(event)) : -1;
    from = null;
    if (node >= 0) view.select(node);
  });
  view.canvas.addEventListener("pointercancel", () => (from = null));
  view.canvas.addEventListener("dblclick", (event) => {
    const node = view.nodeAt(...place(event));
    if (node >= 0) view.fold(node);
  });
  view.canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.shiftKey) view.pan(-event.deltaY, 0);
      else view.zoom(Math.exp(-clamp(event.deltaY, -200, 200) * 0.0025), ...place(event));
    },
    { passive: false },
  );
}

/** Where a key leads from a node of a tree; undefined: nowhere. */
function nodeByKey(tree, node, key) {
  switch (key) {
    case "ArrowLeft":
      return Math.max(0, tree.parent[node]);
    case "ArrowRight":
      return tree.bestChild(node);
    case "ArrowUp":
      return tree.sibling(node, -1);
    case "ArrowDown":
      return tree.sibling(node, 1);
    case "Home":
      return 0;
  }
}

function treeKey(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    " ": () => view.fold(view.selected),
    "+": () => view.zoom(1.25),
    "=": () => view.zoom(1.25),
    "-": () => view.zoom(0.8),
    f: () => view.fit(),
    F: () => view.fit(),
  };
  const node = nodeByKey(view.tree, view.selected, event.key);
  if (node === undefined && !actions[event.key]) return;
  event.preventDefault();
  if (node === undefined) actions[event.key]();
  else view.select(node);
}
