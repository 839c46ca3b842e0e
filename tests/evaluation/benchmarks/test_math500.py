"""MATH-500: cases and grades."""

import json

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.math500 import Math500
from stair_jax.evaluation.case import Answer

ROW = {"problem": "Half of $x$?", "answer": r"\frac{x}{2}", "level": 3, "subject": "Algebra"}


def read(tmp_path, *rows):
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return Math500().read(path)


def test_levels_are_groups_and_the_result_is_asked_for_in_a_box(tmp_path):
    case, other = read(tmp_path, ROW, ROW | {"problem": "b", "level": "Level 5"})
    assert (case.group, other.group) == ("3", "5")
    assert case.prompt.startswith("Half of $x$?") and r"\boxed{...}" in case.prompt
    assert case.columns == {"subject": "Algebra"}


@pytest.mark.parametrize(
    ("final", "right"), [(r"So \boxed{\dfrac x2}.", 1.0), (r"\boxed{x}", 0.0), ("", 0.0)]
)
def test_the_box_is_compared_with_the_reference(tmp_path, final, right):
    (case,) = read(tmp_path, ROW)
    assert Math500().grade(case, Answer("math500", "0", final=final), None) == {"right": right}


def test_another_level_is_refused(tmp_path):
    with pytest.raises(UserError, match="line 1: the level '7' is none of 1, 2, 3, 4, 5"):
        read(tmp_path, ROW | {"level": 7})
