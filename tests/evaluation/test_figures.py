"""Figures: the same bytes each time, names as they are, and one clear line without matplotlib."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest

import stair_jax
from stair_jax.errors import UserError
from stair_jax.evaluation import figures
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.figures import (
    Point,
    Series,
    Tradeoff,
    attack_figure,
    scaling_figure,
    tradeoff_figure,
    tradeoffs,
)
from stair_jax.evaluation.table import Column, RowKey, Table

ROOT = Path(stair_jax.__file__).parents[1]
SERIES = [
    Series("greedy", (Point(300, 0.7, 0.6, 0.8),)),
    Series("best_of_n", (Point(600, 0.75, 0.65, 0.85), Point(1200, 0.8), Point(4800, 0.9))),
]
MODELS = [
    Tradeoff("base", Cell(0.4, 0.3, 0.5), Cell(0.8, 0.7, 0.9)),
    Tradeoff("without an interval", Cell(0.9), Cell(0.5)),
    Tradeoff("without a figure", Cell(None), Cell(0.5)),
]
DRAWN = {
    "scaling": lambda path: scaling_figure(SERIES, path),
    "attack": lambda path: attack_figure(SERIES, path),
    "tradeoff": lambda path: tradeoff_figure(MODELS, path),
    "nothing": lambda path: attack_figure([], path),
}


def texts(path):
    """Comments of an SVG: matplotlib puts each text before its glyphs."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return [node.text.strip() for node in root.iter() if node.tag is ElementTree.Comment]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_has_the_same_bytes_each_time(tmp_path, name):
    first, second = (DRAWN[name](tmp_path / folder / "figure") for folder in "ab")
    assert [path.name for path in first] == ["figure.svg", "figure.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"<dc:date>" not in first[0].read_bytes()
    assert first[1].read_bytes().startswith(b"\x89PNG")


def test_a_matplotlibrc_of_the_user_changes_nothing(tmp_path):
    first = tradeoff_figure(MODELS, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "lines.linewidth": 9}):
        second = tradeoff_figure(MODELS, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_cost_is_on_an_axis_of_powers_of_two(tmp_path):
    svg, _ = scaling_figure(SERIES, tmp_path / "v1.5", score="accuracy")
    found = texts(svg)
    assert svg.name == "v1.5.svg"
    assert {"accuracy", "generated tokens an answer", "greedy", "best_of_n"} <= set(found)
    assert any("2^{10}" in text for text in found)


def test_a_model_without_one_of_two_figures_is_left_out(tmp_path):
    svg, _ = tradeoff_figure(MODELS, tmp_path / "figure")
    assert {"base", "without an interval"} <= set(texts(svg))
    assert "without a figure" not in texts(svg)


def test_a_name_is_shown_as_it_is(tmp_path):
    names = ["_hidden", "cost $5$ and $\\frac{", "two\nlines"]
    series = [Series(name, (Point(1, 0.5), Point(2, 0.6))) for name in names]
    svg, _ = attack_figure(series, tmp_path / "figure")
    assert {"_hidden", "cost $5$ and $\\frac{", "two\\nlines"} <= set(texts(svg))


def test_rows_of_a_table_that_have_both_columns_are_points():
    rows = (RowKey("a", "greedy"), RowKey("b", "greedy"))
    columns = (Column("xstest", "none", "refusals"), Column("gsm8k", "none", "accuracy"))
    table = Table(rows, columns, ((Cell(0.5), Cell(0.25)), (Cell(0.5), None)), (Cost(1), Cost(1)))
    assert tradeoffs(table, *columns) == [Tradeoff("a, greedy", Cell(0.5), Cell(0.25))]


def test_a_series_of_cells_is_sorted_and_leaves_out_what_has_no_figure():
    cells = [(4, Cell(0.5, 0.4, 0.6)), (1, Cell(0.2)), (2, Cell(None))]
    assert Series.of("a", cells).points == (Point(1, 0.2), Point(4, 0.5, 0.4, 0.6))


def test_a_cost_without_a_logarithm_is_refused(tmp_path):
    with pytest.raises(UserError, match="cost of 0 has no logarithm"):
        scaling_figure([Series("a", (Point(0, 0.5),))], tmp_path / "figure")


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="install the extra eval") as caught:
        attack_figure(SERIES, tmp_path / "figure")
    assert "\n" not in str(caught.value) and "matplotlib>=3.10,<4" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_only_when_a_figure_is_made():
    code = f"import sys, {figures.__name__}; print('matplotlib' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
