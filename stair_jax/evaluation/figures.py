"""Figures of an evaluation as SVG and PNG, with matplotlib (the extra `eval`).

The bytes of a file depend on the numbers and on the version of matplotlib alone: no date, no random
ids, and nothing of a matplotlibrc.
"""

import importlib
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.escaping import one_line
from stair_jax.evaluation.table import Column, Table
from stair_jax.storage import atomic_file

_INSTALL = 'pip install "stair_jax[eval]", or pip install "matplotlib>=3.10,<4"'
_STYLE = {
    "svg.hashsalt": "stair_jax",
    "svg.fonttype": "path",  # text looks the same where the font is not installed
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
_MARKERS = "osD^vP*X<>"
_SIZE = (6.0, 4.0)  # inches
_WIDTH, _HEIGHT = 70, 45  # characters of a label that fit on a line along each axis
_DPI = 150


@dataclass(frozen=True)
class Point:
    """A figure at a place, with the interval of the figure where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one line, by rising x."""

    name: str
    points: tuple[Point, ...]

    @classmethod
    def of(cls, name: str, cells: Iterable[tuple[float, Cell]]) -> "Series":
        """Of cells at their places; those without a figure are left out."""
        points = [Point(x, c.value, c.low, c.high) for x, c in cells if c.value is not None]
        return cls(name, tuple(sorted(points, key=lambda point: point.x)))


@dataclass(frozen=True)
class Tradeoff:
    """A model in the plane of safety and helpfulness."""

    name: str
    safety: Cell
    helpfulness: Cell


def tradeoffs(table: Table, safety: Column, helpfulness: Column) -> list[Tradeoff]:
    """The rows of a table that have both columns, for `tradeoff_figure`."""
    found = []
    for row in table.rows:
        safe, helpful = table.cell(row, safety), table.cell(row, helpfulness)
        if safe is not None and helpful is not None:
            found.append(Tradeoff(f"{row.model}, {row.method}", safe, helpful))
    return found


def require_matplotlib() -> Any:
    """The module `matplotlib`.

    Raises:
      UserError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise UserError(
            "figures are drawn by the package matplotlib, which is not installed: install the "
            f"extra eval ({_INSTALL})"
        ) from error


def scaling_figure(
    series: Sequence[Series],
    path: Path,
    score: str = "score",
    cost: str = "generated tokens an answer",
) -> list[Path]:
    """Test-time scaling: score against cost on a logarithmic axis of base 2.

    Args:
      series: a line per method; a method of one setting, such as greedy, is one point.
      path: of the files, without an ending.
      score: label of the vertical axis.
      cost: label of the horizontal axis.

    Returns:
      the files that were written.

    Raises:
      UserError: matplotlib is missing, a cost is not above 0, or a file cannot be written.
    """
    if bad := [point.x for one in series for point in one.points if point.x <= 0]:
        raise UserError(f"a cost of {bad[0]:g} has no logarithm: leave out what has no cost")
    with _axes(path, cost, score) as axes:
        axes.set_xscale("log", base=2)
        _lines(axes, series)
    return _files(path)


def line_figure(
    series: Sequence[Series], path: Path, horizontal: str, vertical: str, is_log: bool = False
) -> list[Path]:
    """Lines with bands of their intervals.

    Args:
      series: the lines.
      path: of the files, without an ending.
      horizontal: label of the horizontal axis.
      vertical: label of the vertical axis.
      is_log: whether the horizontal axis is logarithmic.

    Returns:
      the files that were written.

    Raises:
      UserError: matplotlib is missing, or a file cannot be written.
    """
    with _axes(path, horizontal, vertical) as axes:
        if is_log:
            axes.set_xscale("log")
        _lines(axes, series)
    return _files(path)


def attack_figure(
    series: Sequence[Series],
    path: Path,
    budget: str = "queries",
    success: str = "attack success",
) -> list[Path]:
    """Attack success against the budget, as steps: a try counts once it is made.

    Args:
      series: a line per model or attack.
      path: of the files, without an ending.
      budget: label of the horizontal axis.
      success: label of the vertical axis, which is a share.

    Returns:
      the files that were written.

    Raises:
      UserError: matplotlib is missing, or a file cannot be written.
    """
    with _axes(path, budget, success) as axes:
        lines = [_line(axes, number, one.points, True) for number, one in enumerate(series)]
        axes.set_ylim(-0.02, 1.02)
        _legend(axes, lines, [one.name for one in series])
    return _files(path)


def tradeoff_figure(
    models: Sequence[Tradeoff],
    path: Path,
    safety: str = "safety",
    helpfulness: str = "helpfulness",
) -> list[Path]:
    """Safety against helpfulness, a point a model with the intervals of both.

    Args:
      models: those without one of the two figures are left out.
      path: of the files, without an ending.
      safety: label of the vertical axis.
      helpfulness: label of the horizontal axis.

    Returns:
      the files that were written.

    Raises:
      UserError: matplotlib is missing, or a file cannot be written.
    """
    shown = [
        model
        for model in models
        if model.safety.value is not None and model.helpfulness.value is not None
    ]
    with _axes(path, helpfulness, safety) as axes:
        points = [
            axes.errorbar(
                model.helpfulness.value,
                model.safety.value,
                xerr=_error(model.helpfulness),
                yerr=_error(model.safety),
                fmt=_MARKERS[number % len(_MARKERS)],
                color=f"C{number % 10}",
                capsize=2,
            )
            for number, model in enumerate(shown)
        ]
        _legend(axes, points, [model.name for model in shown])
    return _files(path)


@contextmanager
def _axes(path: Path, horizontal: str, vertical: str) -> Iterator[Any]:
    """The axes of a figure that is written behind the block."""
    matplotlib = require_matplotlib()
    style = importlib.import_module("matplotlib.style")
    with style.context(["default", _STYLE]):
        # no pyplot: it would choose a window system
        figure = importlib.import_module("matplotlib.figure").Figure(_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(_wrapped(horizontal, _WIDTH), parse_math=False)
        axes.set_ylabel(_wrapped(vertical, _HEIGHT), parse_math=False)
        yield axes
        _write(figure, path, matplotlib.__version__)


def _wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(one_line(label), width))


def _write(figure: Any, path: Path, version: str) -> None:
    for file, metadata in zip(
        _files(path),
        ({"Date": None, "Creator": f"matplotlib {version}"}, {"Software": None}),
        strict=True,
    ):
        memory = io.BytesIO()  # matplotlib's own messages of a full disk name no file
        figure.savefig(memory, format=file.suffix[1:], dpi=_DPI, metadata=metadata)
        with atomic_file(file) as out:
            out.write(memory.getvalue())


def _files(path: Path) -> list[Path]:
    """The SVG and the PNG; a dot in the name is no ending."""
    return [path.with_name(f"{path.name}.{ending}") for ending in ("svg", "png")]


def _lines(axes: Any, series: Sequence[Series]) -> None:
    lines = [_line(axes, number, one.points) for number, one in enumerate(series)]
    _legend(axes, lines, [one.name for one in series])


def _line(axes: Any, number: int, points: Sequence[Point], steps: bool = False) -> Any:
    """A line with markers, and the intervals as a band."""
    x, y = [point.x for point in points], [point.y for point in points]
    color = f"C{number % 10}"
    (line,) = axes.plot(
        x,
        y,
        marker=_MARKERS[number % len(_MARKERS)],
        color=color,
        drawstyle="steps-post" if steps else "default",
    )
    # no number where there is no interval: a gap in the band
    low = [math.nan if point.low is None else point.low for point in points]
    high = [math.nan if point.high is None else point.high for point in points]
    if len(points) > 1:
        axes.fill_between(
            x, low, high, color=color, alpha=0.15, linewidth=0, step="post" if steps else None
        )
    elif points:
        axes.vlines(x, low, high, color=color)
    return line


def _error(cell: Cell) -> list[list[float]] | None:
    """Distances down and up from the figure, as matplotlib wants them."""
    if cell.value is None or cell.low is None or cell.high is None:
        return None
    return [[max(cell.value - cell.low, 0.0)], [max(cell.high - cell.value, 0.0)]]


def _legend(axes: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend of names as they are: matplotlib would hide _x, and read $x$ as mathematics."""
    if not handles:
        return
    legend = axes.legend(handles, [str(number) for number in range(len(names))], frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(one_line(name))
