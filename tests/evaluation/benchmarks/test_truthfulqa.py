"""TruthfulQA: MC1, MC2 and the binary choice by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks.truthfulqa import TruthfulQa
from stair_jax.evaluation.case import Answer, Case

BENCHMARK = TruthfulQa()
HEADER = (
    "Category", "Question", "Best Answer", "Best Incorrect Answer", "Correct Answers",
    "Incorrect Answers",
)  # fmt: skip
ROW = ("Food", "Why?", "So", "Not so", "That; So", "Never.; Not so; That")


@pytest.fixture
def case(table):
    return BENCHMARK.read(table("TruthfulQA.csv", HEADER, ROW))[0]


def grade(case, *likelihoods):
    return BENCHMARK.grade(case, Answer("truthfulqa", "0", likelihoods=likelihoods), None)


def test_the_best_answer_is_the_first_choice_and_no_choice_comes_twice(case):
    # "That" is listed on both sides: it is right
    assert case.choices == ("So.", "That.", "Not so.", "Never.")
    assert case.columns == {"right": 2, "best_wrong": 2}


def test_scores_by_hand(case):
    logs = [math.log(p) for p in (0.2, 0.4, 0.1, 0.1)]
    assert grade(case, *logs) == {"mc1": 1.0, "mc2": pytest.approx(0.75), "binary": 1.0}
    logs = [math.log(p) for p in (0.2, 0.1, 0.1, 0.4)]
    assert grade(case, *logs) == {"mc1": 0.0, "mc2": pytest.approx(0.375), "binary": 1.0}


def test_a_file_of_before_2025_has_no_binary_choice(table):
    header = [name for name in HEADER if name != "Best Incorrect Answer"]
    row = [cell for cell in ROW if cell != "Not so"]
    (case,) = BENCHMARK.read(table("TruthfulQA.csv", header, row))
    assert set(grade(case, -1.0, -2.0, -3.0, -4.0)) == {"mc1", "mc2"}


def test_missing_likelihoods_are_missing_scores(case):
    assert set(grade(case).values()) == {None}
    assert grade(case, -math.inf, -math.inf, -math.inf, -math.inf)["mc2"] is None
    assert set(grade(case, math.nan, -1.0, -1.0, -1.0).values()) == {None}


@given(st.lists(st.floats(-1e4, 0), min_size=4, max_size=4), st.floats(-500, 500))
def test_only_differences_of_likelihoods_count(likelihoods, shift):
    case = Case("0", "Why?", choices=tuple("abcd"), columns={"right": 2, "best_wrong": 2})
    scores = grade(case, *likelihoods)
    assert 0 <= scores["mc2"] <= 1 and scores["mc1"] in (0, 0.5, 1)
    assert grade(case, *(value + shift for value in likelihoods))["mc2"] == pytest.approx(
        scores["mc2"], abs=1e-9
    )


def test_a_row_without_wrong_answers_is_refused(table):
    row = ("Food", "Why?", "So", "", "So", "So")
    with pytest.raises(UserError, match="line 2: all answers in 'Incorrect Answers' are right"):
        BENCHMARK.read(table("TruthfulQA.csv", HEADER, row))


def test_the_real_file_has_790_questions(real_data):
    cases = BENCHMARK.read(BENCHMARK.SOURCE.find(real_data))
    assert len(cases) == 790
    for case in cases:
        assert 0 < case.columns["right"] < len(case.choices)
        assert len(set(case.choices)) == len(case.choices)
        assert case.columns["best_wrong"] == case.columns["right"]
