"""How many preference pairs a search gives at other thresholds, and which thresholds to take.

The grid comes from the trees' own values: v0 from the gaps of siblings, v1 from the values of the
better ones, min_visits in powers of two. All of it is counted in one pass over the pairs. The
limits `max_pairs_per_parent` and `max_pairs_per_tree` are not looked at.

The value of a node is a mean of the rewards of n evaluations: rollouts from it or from below it,
and answers below it, each of which is judged once however often it is visited. So the gap of two
values has a standard error of about `noise * sqrt(1 / n1 + 1 / n2)`, where `noise` is the standard
deviation of the rewards below a node, pooled over the nodes of all trees whose rewards differ. A
terminal node has n = 1: how far its judgements would vary is not known apart. The direction of a
pair is expected to be right with the probability Phi(gap / error), of a normal error and no other
knowledge.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stair_jax.errors import UserError
from stair_jax.search.pair_candidates import Candidates, Mask, Nodes
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import Settings, setting
from stair_jax.storage import read_json

REPORT_FILE = "report.json"
Floats: TypeAlias = NDArray[np.float64]
RULE = (
    "of the thresholds at the present v1 at which a share of at least min_right of the directions "
    "is expected to be right, those with most pairs; if these are fewer than min_pairs, of all "
    "thresholds with at least min_pairs pairs those with the largest expected share; else those "
    "with most pairs"
)
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class PairReportSettings(Settings):
    """Of `report.json`: which thresholds it proposes.

    Attributes:
      min_pairs: they leave at least so many pairs, if any do; the paper's batch of DPO is 128.
      min_right: and this share of the directions, or more, is expected to be right, given how far
        the rewards of rollouts vary.
    """

    min_pairs: int = setting(128, least=1)
    min_right: float = setting(0.9, least=0.5, most=1)


_DEFAULTS = PairReportSettings()


@dataclass(frozen=True)
class TreeGaps:
    """What the report needs of one tree.

    Attributes:
      gap: between the values of each candidate that has one, is neither malformed nor too long,
        and is left out by no filter.
      better: the larger value.
      visits: the smaller number of visits, without terminal nodes; infinite for two of these.
      share: 1 / n1 + 1 / n2 of the evaluations.
      squares: of the rewards of each node's subtree around their mean, summed over the nodes.
      freedom: degrees of freedom of `squares`.
    """

    gap: Floats
    better: Floats
    visits: Floats
    share: Floats
    squares: float
    freedom: float


def tree_gaps(
    record: TreeRecord,
    candidates: Candidates,
    pairs: tuple[Nodes, Nodes],
    filtered: Mapping[str, Mask] | None = None,
) -> TreeGaps:
    """The candidates of a tree, as arrays.

    Args:
      record: a finished tree.
      candidates: its nodes.
      pairs: (better, worse), as from `candidates`.
      filtered: for each filter the pairs that it leaves out, whatever the thresholds.
    """
    # Thresholds that nothing fails: what is left out is left out whatever they are.
    reasons = candidates.left_out(*pairs, 0.0, -math.inf, 0)
    keep = ~(reasons["no_value"] | reasons["malformed"] | reasons["too_long"])
    for hit in (filtered or {}).values():
        keep &= ~hit
    better, worse = pairs[0][keep], pairs[1][keep]
    evaluations, squares, freedom = _evaluations(record, candidates)
    visits = np.minimum(candidates.visits[better], candidates.visits[worse])
    return TreeGaps(
        gap=candidates.gap(better, worse),
        better=candidates.value[better],
        visits=visits,
        share=1 / evaluations[better] + 1 / evaluations[worse],
        squares=squares,
        freedom=freedom,
    )


def _evaluations(record: TreeRecord, candidates: Candidates) -> tuple[Floats, float, float]:
    """Evaluations below each node, at least 1; squares and degrees of freedom of `TreeGaps`.

    The rewards of a node's own rollouts are what its children leave of its value, so that trees
    without judgements have them too; several of one node count as so many of their mean.
    """
    visits = np.array([node.visits for node in record.nodes], float)
    sums = np.where(visits > 0, np.nan_to_num(candidates.value) * visits, 0)
    number, total = visits.copy(), sums.copy()
    np.subtract.at(number, candidates.parent[1:], visits[1:])
    np.subtract.at(total, candidates.parent[1:], sums[1:])
    inner = np.isfinite(candidates.visits)
    mean = np.divide(total, number, out=np.zeros(len(total)), where=number > 0)
    number = np.where(inner, number, np.minimum(number, 1))
    below = np.stack([number, number * mean, number * mean**2], axis=1)
    depth = np.array([node.depth for node in record.nodes])
    for level in range(int(depth.max()), 0, -1):
        nodes = np.flatnonzero(depth == level)
        np.add.at(below, candidates.parent[nodes], below[nodes])
    several = inner & (depth > 0) & (below[:, 0] > 1)
    number, total, squares = below[several].T
    within = np.maximum(squares - total**2 / number, 0)
    return np.maximum(below[:, 0], 1), float(within.sum()), float((number - 1).sum())


def make_report(
    trees: Iterable[TreeGaps],
    thresholds: tuple[float, float, int],
    settings: PairReportSettings = _DEFAULTS,
) -> dict[str, Any]:
    """The report of all trees, as plain JSON values.

    Args:
      trees: of one search.
      thresholds: v0, v1, min_visits that the stage has.
      settings: see `PairReportSettings`.

    Returns:
      {trees, candidates, noise, rule, min_visits [I], v0 [J], v1 [K], pairs [I][J][K], right
      [I][J][K], set, proposed}. `candidates` counts the pairs with a gap; `set` and `proposed` are
      {v0, v1, min_visits, pairs, right}, the latter None where there is no candidate. `right` is
      None where there are no pairs.
    """
    found = list(trees)
    uneven = [tree for tree in found if (tree.gap > 0).any()]
    squares, freedom = sum(t.squares for t in uneven), sum(t.freedom for t in uneven)
    noise = math.sqrt(squares / freedom) if freedom else 0.0
    names = ("gap", "better", "visits", "share")
    gap, better, visits, share = (_joined(uneven, name) for name in names)
    v0, v1, min_visits = thresholds
    grid = (_visit_grid(visits, min_visits), _grid(gap, v0, 0.0), _grid(better, v1))
    places = (
        np.searchsorted(grid[0], visits, side="right"),
        np.searchsorted(grid[1], gap, side="left"),  # a gap of v0 itself is too small
        np.searchsorted(grid[2], better, side="right"),
    )
    right = _phi(gap, noise * np.sqrt(share))
    pairs = _at_least(places, grid, np.ones(len(gap)))
    share_right = _at_least(places, grid, right) / np.maximum(pairs, 1)
    cells = _cells(grid, pairs, share_right)
    present = next(c for c in cells if (c["v0"], c["v1"], c["min_visits"]) == thresholds)
    return {
        "trees": len(found),
        "candidates": int(np.sum(gap > 0)),
        "noise": noise,
        "rule": RULE,
        "settings": vars(settings),
        "min_visits": [int(value) for value in grid[0]],
        "v0": grid[1].tolist(),
        "v1": grid[2].tolist(),
        "pairs": pairs.astype(int).tolist(),
        "right": _none_where(pairs == 0, share_right),
        "set": present,
        "proposed": _proposed(cells, v1, settings),
    }


def _none_where(hidden: NDArray[np.bool_], values: Floats) -> Any:
    """An array as nested lists, with None where it is hidden."""
    shown = values.astype(object)
    shown[hidden] = None
    return shown.tolist()


def _joined(trees: Sequence[TreeGaps], name: str) -> Floats:
    return np.concatenate([np.empty(0), *(getattr(tree, name) for tree in trees)])


def _grid(values: Floats, present: float, *more: float) -> Floats:
    """Quantiles of the positive gaps or of the values, and the present threshold."""
    chosen = values[values > 0] if more else values
    found = np.quantile(chosen, _QUANTILES).tolist() if len(chosen) else []
    return np.array(sorted({present, *more, *(float(f"{value:.2g}") for value in found)}))


def _visit_grid(visits: Floats, present: int) -> Floats:
    """1, 2, 4, ... up to the largest number that a pair of nodes that are not terminal has."""
    most = max(visits[np.isfinite(visits)], default=1)
    powers = 2 ** np.arange(int(math.log2(max(most, 1))) + 1)
    return np.array(sorted({present, *powers.tolist()}), float)


def _at_least(
    places: tuple[NDArray[Any], ...], grid: tuple[Floats, ...], weights: Floats
) -> Floats:
    """For each cell of the grid, the summed weights of the pairs that pass its thresholds.

    `places` counts the thresholds of each axis that a pair passes.
    """
    shape = tuple(len(axis) + 1 for axis in grid)
    flat = np.ravel_multi_index(places, shape)
    total = np.zeros(math.prod(shape))
    np.add.at(total, flat, weights)
    total = total.reshape(shape)
    for axis in range(3):
        total = np.flip(np.cumsum(np.flip(total, axis), axis), axis)
    return total[1:, 1:, 1:]


def _phi(gap: Floats, error: Floats) -> Floats:
    """Phi(gap / error); 1 where there is no error."""
    scaled = np.divide(gap, error * math.sqrt(2), out=np.full(len(gap), math.inf), where=error > 0)
    return np.array([0.5 * (1 + math.erf(value)) for value in scaled.tolist()])


def _cells(grid: tuple[Floats, ...], pairs: Floats, right: Floats) -> list[dict[str, Any]]:
    return [
        {
            "v0": float(grid[1][j]),
            "v1": float(grid[2][k]),
            "min_visits": int(grid[0][i]),
            "pairs": int(pairs[i, j, k]),
            "right": float(right[i, j, k]) if pairs[i, j, k] else None,
        }
        for i, j, k in np.ndindex(pairs.shape)
    ]


def _proposed(
    cells: Sequence[dict[str, Any]], v1: float, settings: PairReportSettings
) -> dict[str, Any] | None:
    """See `RULE`; ties go to the stricter thresholds."""
    cells = [cell for cell in cells if cell["pairs"]]

    def strictness(cell: dict[str, Any]) -> tuple[Any, ...]:
        return cell["v0"], cell["min_visits"], cell["v1"]

    def most(of: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return max(of, key=lambda cell: (cell["pairs"], strictness(cell)))

    sure = [c for c in cells if c["v1"] == v1 and c["right"] >= settings.min_right]
    if sure and most(sure)["pairs"] >= settings.min_pairs:
        return most(sure)
    enough = [cell for cell in cells if cell["pairs"] >= settings.min_pairs]
    if enough:
        return max(enough, key=lambda cell: (cell["right"], strictness(cell)))
    return most(cells) if cells else None


def read_report(folder: Path, name: str) -> str:
    """The report in the folder of the stage `name` in words; empty where there is none."""
    path = folder / REPORT_FILE
    if not path.is_file():  # of a stage that was made before there were reports
        return ""
    report = read_json(path)
    try:
        return f"{format_report(report)}\n{format_proposal(report, name)}"
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged: it is no report of preference pairs") from error


def format_proposal(report: Mapping[str, Any], name: str) -> str:
    """One line: what the thresholds give, and what others would; `name` is the stage's."""
    now, proposed = report["set"], report["proposed"]
    said = f"{_count(now)} at v0 {now['v0']:g}, v1 {now['v1']:g}, min_visits {now['min_visits']}"
    if proposed is None:
        return f"{said}; no thresholds give any"
    if proposed == now:
        return f"{said}; no others are proposed"
    flags = " ".join(
        f"--config.{name}.{field}={proposed[field]:g}" for field in ("v0", "v1", "min_visits")
    )
    return f"{said}; proposed, {_count(proposed)}: {flags}"


def _count(cell: Mapping[str, Any]) -> str:
    sure = "" if cell["right"] is None else f" ({cell['right']:.0%} expected to be right)"
    return f"{cell['pairs']} pairs{sure}"


def format_report(report: Mapping[str, Any]) -> str:
    """Two tables: pairs against v0 and min_visits, and against v1, each at the present others."""
    now = report["set"]
    k, i = report["v1"].index(now["v1"]), report["min_visits"].index(now["min_visits"])
    j = report["v0"].index(now["v0"])
    head = ["v0"] + [f"min_visits {count}" for count in report["min_visits"]]
    rows = [
        [f"{v0:g}"] + [_cell(report, a, b, k) for a in range(len(report["min_visits"]))]
        for b, v0 in enumerate(report["v0"])
    ]
    other = ["v1", *(f"{v1:g}" for v1 in report["v1"])]
    line = ["pairs", *(_cell(report, i, j, c) for c in range(len(report["v1"])))]
    return "\n".join(
        [
            f"pairs of {report['trees']} trees at v1 {now['v1']:g}, and in how many of them the "
            "direction is expected to be right",
            *_aligned([head, *rows]),
            f"at v0 {now['v0']:g} and min_visits {now['min_visits']}",
            *_aligned([other, line]),
        ]
    )


def _cell(report: Mapping[str, Any], i: int, j: int, k: int) -> str:
    cell = {"pairs": report["pairs"][i][j][k], "right": report["right"][i][j][k]}
    return f"{cell['pairs']}{_percent(cell)}"


def _percent(cell: Mapping[str, Any]) -> str:
    return "" if cell["right"] is None else f" ({cell['right']:.0%})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
