// Where the nodes of a tree stand: a column for each depth, rows by d3's tidy tree.

const COUSINS = 1.3; // rows between nodes of two parents

/** {row: by node, columns: nodes by depth from top to bottom, least, most: rows}. */
function layoutOf(tree) {
  const row = new Float64Array(tree.size).fill(NaN);
  const columns = [];
  const below = (node) =>
    tree.folded[node] || !tree.childCount(node) ? null : tree.children(node);
  const root = d3.hierarchy(0, below);
  d3
    .tree()
    .nodeSize([1, 1])
    .separation((a, b) => (a.parent === b.parent ? 1 : COUSINS))(root);
  let least = 0;
  let most = 0;
  root.eachBefore((found) => {
    row[found.data] = found.x;
    (columns[found.depth] ??= []).push(found.data);
    least = Math.min(least, found.x);
    most = Math.max(most, found.x);
  });
  return { row, columns, least, most };
}

/** Place in a column of the first node at or below a row. */
function firstFrom(column, row, wanted) {
  let low = 0;
  let high = column.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row[column[middle]] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The node of a column that is nearest to a row. */
function nearest(column, row, wanted) {
  const at = firstFrom(column, row, wanted);
  const both = [column[at - 1], column[at]].filter((node) => node !== undefined);
  return both.reduce((a, b) => (Math.abs(row[a] - wanted) <= Math.abs(row[b] - wanted) ? a : b));
}
