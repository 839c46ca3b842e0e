"""Figures of a finished evaluation, and its methods at equal numbers of generated tokens."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.budget_curve import success_curve
from stair_jax.evaluation.equal_tokens import scaling_series
from stair_jax.evaluation.figures import (
    Series,
    attack_figure,
    require_matplotlib,
    scaling_figure,
    tradeoff_figure,
)
from stair_jax.evaluation.file_names import slug
from stair_jax.evaluation.method_scaling import Scaling, scaling_markdown, scalings
from stair_jax.evaluation.table import Table, row_label
from stair_jax.evaluation.tabulate import Result
from stair_jax.evaluation.tradeoff import plane_of
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.monitoring import say

_HALF = 0.5  # of a score from 0 to 1: from there on an attack counts as successful
_ALL_UP_TO = 16  # budgets in queries that are all shown; above, powers of two

Draw = Callable[[Path], Any]  # writes a figure; the path has no ending


def write_scaling(
    folder: Path, table: Table, results: Sequence[Result], test_time: TestTimeSettings
) -> None:
    """Writes figures/*.svg and *.png, and equal_tokens.md where a method has several sizes.

    Without matplotlib one line says how to install it, and all but the figures is there.

    Args:
      folder: of the evaluation.
      table: of the results.
      results: of `method_scaling.main_results`.
      test_time: of the searches, where their names have no size.
    """
    found = list(scalings(table, results, test_time))
    if sized := [one for one in found if one.has_sizes]:
        storage.write_text(folder / "equal_tokens.md", scaling_markdown(sized))
    drawn = [*_scaling_figures(found), *_tradeoff_figure(table), *_attack_figures(results)]
    draw_all(folder, drawn)


def draw_all(folder: Path, drawn: Sequence[tuple[str, Draw]]) -> None:
    """Writes figures/*.svg and *.png; without matplotlib one line says how to install it.

    Args:
      folder: above that of the figures.
      drawn: name and function of each.
    """
    if not drawn:
        return
    try:
        require_matplotlib()
    except UserError as error:
        say(f"{folder.name}: no figures are drawn: {error}")
        return
    figures = storage.make_folder(folder / "figures")
    for name, draw in drawn:
        draw(figures / name)


def _scaling_figures(found: Sequence[Scaling]) -> Iterator[tuple[str, Draw]]:
    """Test-time scaling, a figure for each benchmark where a method searches."""
    for one in found:
        series, label = scaling_series(one.settings), f"{one.metric} on {one.benchmark}"
        yield f"scaling_{slug(one.benchmark)}", partial(scaling_figure, series, score=label)


def _tradeoff_figure(table: Table) -> Iterator[tuple[str, Draw]]:
    """Safety against helpfulness, where a row has both."""
    if plane := plane_of(table):
        yield (
            "safety_helpfulness",
            partial(
                tradeoff_figure,
                plane.models,
                safety=plane.safety,
                helpfulness=plane.helpfulness,
            ),
        )


def _attack_figures(results: Sequence[Result]) -> Iterator[tuple[str, Draw]]:
    """Attack success against queries, a figure for each benchmark with attacks of several tries."""
    lines: dict[str, list[Series]] = {}
    labels: dict[str, str] = {}
    for one in results:
        metric = next((metric for metric in one.metrics if metric.worst), None)
        if metric is None or _most_tries(one) < 2:
            continue
        series = _success(one, metric)
        if series.points:
            lines.setdefault(one.benchmark, []).append(series)
            labels.setdefault(one.benchmark, _success_label(one, metric))
    for benchmark, own in lines.items():
        draw = partial(attack_figure, own, success=labels[benchmark])
        yield f"attack_success_{slug(benchmark)}", draw


def _success(result: Result, metric: Metric) -> Series:
    """Attack success of one row and attack at each budget of queries."""
    most = _most_tries(result)
    powers = (2**power for power in range(most.bit_length()))
    budgets = sorted({*range(1, min(most, _ALL_UP_TO) + 1), *powers, most})
    cells = success_curve(result.rows, metric, _HALF, budgets, judge=result.judge)
    name = f"{row_label(result.key)}, {result.attack}"
    return Series.of(name, zip(map(float, budgets), cells, strict=True))


def _success_label(result: Result, metric: Metric) -> str:
    beyond = "at most" if metric.worst == "low" else "at least"
    judge = f", by {result.judge}" if result.judge else ""
    return f"share with {metric.name} {beyond} {_HALF:g} on {result.benchmark}{judge}"


def _most_tries(result: Result) -> int:
    """Most answers to a case."""
    counts: dict[str, int] = {}
    for row in result.rows:
        counts[row.case.id] = counts.get(row.case.id, 0) + 1
    return max(counts.values(), default=0)
