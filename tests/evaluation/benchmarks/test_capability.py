"""What holds for every benchmark that is not of safety: metrics, sources, and the page of them."""

from pathlib import Path

import pytest

import stair_jax
from stair_jax.evaluation.benchmarks import BENCHMARKS

PAGE = Path(stair_jax.__file__).parents[1] / "docs/evaluation_capability.md"
CELLS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]
LISTED = {cells[0].strip("`"): cells[3:6] for cells in CELLS}


def test_the_page_lists_all_that_the_page_of_safety_does_not():
    safety = (PAGE.parent / "evaluation_benchmarks.md").read_text()
    others = {name for name in BENCHMARKS if f"| `{name}` |" not in safety}
    assert set(LISTED) == others - {"pocket"}


@pytest.mark.parametrize("name", LISTED)
def test_the_page_says_what_the_class_says(name):
    kind = BENCHMARKS[name]
    metrics = ", ".join(metric.name for metric in kind.METRICS)
    assert LISTED[name] == [kind.ROLE, kind.QUESTION, metrics]


@pytest.mark.parametrize("name", LISTED)
def test_a_user_is_told_where_the_file_is_from(name):
    source = BENCHMARKS[name].SOURCE
    assert "https://" in source.how
    names = {path.removesuffix(".gz").rpartition("/")[2] for path in source.paths}
    assert any(file in source.how for file in names)
