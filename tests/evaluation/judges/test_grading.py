"""Verdicts hold the numbers that metrics are made of, and none where a reply was not read."""

import pytest

from stair_jax.evaluation.benchmarks.strongreject import StrongReject
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.choosing import chances_of, chances_of_tokens
from stair_jax.evaluation.judges.grading import Outcome, verdict
from stair_jax.evaluation.judges.wordings import default_wording

HARMFUL = default_wording("harmful").parts[0]


def chosen(label, *others):
    return {"": {label: 1.0, **dict.fromkeys(others, 0.0)}}


def test_the_likeliest_label_is_the_verdict_and_its_probabilities_the_scores():
    found = {"": {"yes": 0.25, "no": 0.75}}
    made = verdict("harmful", "j", [Outcome(found, "text", 3, "m", "2026-11-30")])
    assert (made.label, made.scores) == ("no", {"yes": 0.25, "no": 0.75})
    assert (made.text, made.tokens, made.model, made.date) == ("text", 3, "m", "2026-11-30")


def test_labels_that_are_equally_likely_are_no_verdict():
    made = verdict("harmful", "j", [Outcome({"": {"yes": 0.5, "no": 0.5}})])
    assert made.label is None and made.scores == {}


def test_scores_of_a_rubric_are_expectations_but_for_the_refusal():
    found = {
        "refusal": {"0": 0.75, "1": 0.25},
        "convincing": {"1": 0.5, "2": 0.0, "3": 0.0, "4": 0.0, "5": 0.5},
        "specific": {"1": 0.0, "2": 0.5, "3": 0.5, "4": 0.0, "5": 0.0},
    }
    made = verdict("rubric", "j", [Outcome(found)])
    assert made.label == "answered"
    assert made.scores == {"refusal": 0.0, "convincing": 3.0, "specific": 2.5}


def test_one_score_of_a_rubric_is_the_harm_from_0_to_1():
    found = {"": {"1": 0.5, "2": 0.0, "3": 0.0, "4": 0.0, "5": 0.5}}
    made = verdict("rubric", "j", [Outcome(found)])
    assert (made.label, made.scores) == ("rated", {"harm": 0.5})
    answer = Answer("strongreject", "0", final="So.")
    graded = StrongReject().grade(Case("0", "How?"), answer, made)
    assert graded == {"goodness": 0.5, "refused": None}


@pytest.mark.parametrize(
    ("one", "other", "label", "p"),
    [
        ("first", "second", "first", 1.0),
        ("second", "first", "second", 0.0),
        ("first", "first", "tie", 0.5),
        ("second", "second", "tie", 0.5),
    ],
)
def test_a_comparison_is_the_mean_of_both_orders(one, other, label, p):
    """A judge that always takes the same place has no preference."""
    outcomes = [
        Outcome(chosen(one, *{"first", "second"} - {one})),
        Outcome(chosen(other, *{"first", "second"} - {other})),
    ]
    made = verdict("preference", "j", outcomes)
    assert (made.label, made.scores["p"]) == (label, p)
    assert made.scores["p_shown_first"] == float(one == "first")
    assert made.scores["p_shown_second"] == float(other == "second")


def test_a_comparison_with_one_order_missing_is_missing():
    made = verdict("preference", "j", [Outcome(chosen("first", "second")), Outcome(None)])
    assert made.label is None and made.scores == {}


def test_log_probabilities_become_probabilities_of_the_labels():
    chances = chances_of(HARMFUL, [-1.0, -2.0])
    assert chances["yes"] == pytest.approx(0.7310585786)
    assert sum(chances.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "logps", [(), (-1.0,), (float("nan"), -1.0), (float("-inf"),) * 2, (-9.0, -9.0), (3.0, -1.0)]
)
def test_log_probabilities_that_say_nothing_are_no_verdict(logps):
    assert chances_of(HARMFUL, logps) is None


def test_tokens_count_for_the_label_that_they_begin():
    tokens = {"Yes": -1.0, " yes": -2.0, "NO": -1.5, "N": -3.0, "The": -0.5, "": -0.1}
    chances = chances_of_tokens(HARMFUL, tokens)
    yes, no = 0.36787944 + 0.13533528, 0.22313016 + 0.04978707
    assert chances["yes"] == pytest.approx(yes / (yes + no))
    assert chances_of_tokens(HARMFUL, {"The": -0.1, "Yes": -4.0}) is None


def test_a_token_that_begins_two_labels_counts_for_none():
    part = default_wording("correctness").parts[0]
    assert chances_of_tokens(part, {"CORRECT": -1.0, "IN": -1.0, "N": -9.0})["correct"] == (
        pytest.approx(0.49991, abs=1e-4)
    )
    assert chances_of_tokens(HARMFUL, {"": 0.0}) is None
