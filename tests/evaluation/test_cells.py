"""Cells: what is counted, how answers are combined, intervals, corrections, paired differences."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.bootstrap import mean_interval
from stair_jax.evaluation.calibration import Correction
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.cells import Cell, cell, difference
from stair_jax.evaluation.statistics import correlation, macro_mean, mean, ratio_to

GOOD = Metric("goodness", "good")
SAMPLES = 200


def graded(case, score, sample=0, finish="stop", group="", cluster="", reference=None, **answer):
    """A graded answer of the model m."""
    return Graded(
        Case(case, "?", group=group, cluster=cluster, reference=reference),
        Answer("b", case, sample=sample, model="m", finish=finish, **answer),
        {"good": score},
    )


def column(scores, **more):
    """One answer a case; cases have names that sort by number."""
    return [graded(f"{index:03d}", score, **more) for index, score in enumerate(scores)]


def test_a_cell_says_what_it_is_made_of():
    rows = [
        graded("a", 1.0),
        graded("b", 0.0, finish="length"),
        graded("c", None),
        graded("d", None, finish="missing"),
        graded("e", 0.5),
    ]
    found = cell(rows, GOOD, judge="rule")
    assert (found.value, found.n, found.cases, found.answers) == (0.5, 3, 5, 5)
    assert (found.missing, found.cut) == (2, 1)
    assert (found.judge, found.metric, found.unit, found.corrected) == (
        "rule",
        "goodness",
        "share",
        False,
    )


def test_a_ratio_of_several_answers_to_a_case_is_one_of_their_means():
    ratio = Metric("ratio", "good", ratio_to("tried"))
    tried = [("a", 0, 1.0, 1.0), ("a", 1, 0.0, 0.0), ("b", 0, 0.0, 1.0), ("b", 1, 1.0, 1.0)]
    rows = [
        replace(graded(case, None, sample), scores={"good": good, "tried": attempts})
        for case, sample, good, attempts in tried
    ]
    assert cell(rows, ratio).value == pytest.approx(2 / 3)


def test_a_score_that_is_no_finite_number_is_missing():
    found = cell([graded("a", float("nan")), graded("b", float("inf")), graded("c", 0.25)], GOOD)
    assert (found.value, found.missing) == (0.25, 2)


def test_without_a_score_there_is_no_figure_and_the_cell_says_why():
    assert cell([], GOOD) == Cell(None, metric="goodness", note="no cases")
    found = cell([graded("a", None)], GOOD)
    assert (found.value, found.low, found.missing) == (None, None, 1)
    assert found.note == "no answer has a score"


def test_one_cluster_has_a_figure_and_no_interval():
    found = cell(column([0.0, 1.0], cluster="x"), GOOD)
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert "one cluster" in found.note


def test_rows_of_two_models_are_no_cell():
    rows = [*column([1.0]), Graded(Case("z", "?"), Answer("b", "z", model="other"), {"good": 1.0})]
    with pytest.raises(ValueError, match="one model"):
        cell(rows, GOOD)


@pytest.mark.parametrize(("worst", "value"), [("low", 0.1), ("high", 0.7), (None, 0.4)])
def test_of_several_answers_to_a_case_the_worst_counts_or_their_mean(worst, value):
    rows = [graded("a", score, sample) for sample, score in enumerate([0.4, 0.1, None, 0.7])]
    found = cell(rows, Metric("goodness", "good", worst=worst))
    assert found.value == pytest.approx(value)
    assert (found.n, found.cases, found.answers, found.missing) == (1, 1, 4, 1)


def test_a_statistic_sees_the_answer_that_counts():
    def lengths(rows, values, weights):
        return weights @ np.array([row.answer.tokens for row in rows], float)

    rows = [graded("a", 0.9, 0, tokens=5), graded("a", 0.2, 1, tokens=7)]
    assert cell(rows, Metric("n", "good", lengths, "low", unit="tokens")).value == 7.0


def test_a_metric_of_a_group_leaves_the_others_out():
    rows = [graded("a", 1.0, group="x"), graded("b", 0.0, group="y"), graded("c", 0.0, group="x")]
    found = cell(rows, Metric("goodness", "good", group="x"))
    assert (found.value, found.cases) == (0.5, 2)


def test_an_answer_whose_scores_lack_the_key_is_no_concern_of_the_metric():
    rows = [*column([1.0, None]), replace(graded("z", 0.0), scores={"other": 0.0})]
    found = cell(rows, GOOD)
    assert (found.cases, found.answers, found.missing) == (2, 2, 1)


def test_the_interval_is_that_of_the_bootstrap_of_means():
    values = list(np.random.default_rng(3).random(60))
    clusters = [f"c{index % 20}" for index in range(60)]
    rows = [
        graded(f"{index:03d}", value, cluster=cluster)
        for index, (value, cluster) in enumerate(zip(values, clusters, strict=True))
    ]
    found, expected = cell(rows, GOOD), mean_interval(values, clusters)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-12
    )


def test_a_cluster_may_have_the_name_of_a_case():
    """A case that stands alone is no part of a cluster that is called like it."""
    apart = [graded("x", 1.0), graded("y", 0.0, cluster="z")]
    alike = [graded("x", 1.0), graded("y", 0.0, cluster="x")]
    assert cell(apart, GOOD) == cell(alike, GOOD)


@pytest.mark.parametrize(("unit", "top"), [("share", 1.0), ("percent", 100.0)])
def test_no_success_in_n_cases_bounds_the_share_and_does_not_prove_it(unit, top):
    found = cell(column([0.0] * 95), Metric("success", "good", unit=unit))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(top * (1 - 0.025 ** (1 / 95)), rel=1e-3)
    assert cell(column([top] * 95), Metric("success", "good", unit=unit)).low < top


def test_numbers_without_bounds_that_all_agree_have_no_spread():
    found = cell(column([1.0] * 9), Metric("steps", "good", unit="steps"))
    assert (found.low, found.high) == (1.0, 1.0)


def test_a_correlation_of_constants_is_undefined():
    rows = [graded(str(index), 1.0, reference=index) for index in range(5)]
    found = cell(rows, Metric("r", "good", correlation, unit=""))
    assert found.value is None and found.note == "undefined for these numbers"


SCORED = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0])),
        st.sampled_from(["", "p", "q", "r"]),
        st.sampled_from("gh"),
    ),
    min_size=2,
    max_size=25,
)


def rows_of(scored):
    """Rows with clusters, groups and references."""
    return [
        graded(f"{index:02d}", score, cluster=cluster, group=group, reference=index % 5)
        for index, (score, cluster, group) in enumerate(scored)
    ]


@settings(deadline=None, max_examples=60)
@given(scored=SCORED, statistic=st.sampled_from([mean, macro_mean, correlation]), data=st.data())
def test_an_interval_holds_its_value_and_the_order_of_rows_changes_nothing(scored, statistic, data):
    rows, metric = rows_of(scored), Metric("m", "good", statistic, unit="")
    found = cell(rows, metric, num_samples=SAMPLES)
    assert cell(data.draw(st.permutations(rows)), metric, num_samples=SAMPLES) == found
    if found.low is not None:
        assert found.low <= found.value <= found.high
    assert found.n == found.cases - found.missing


@settings(deadline=None, max_examples=40)
@given(scored=SCORED, statistic=st.sampled_from([mean, macro_mean]))
def test_the_difference_of_a_row_with_itself_is_zero(scored, statistic):
    rows = rows_of(scored)
    found = difference(rows, rows[::-1], Metric("m", "good", statistic), num_samples=SAMPLES)
    assert found.value in (0.0, None)
    assert {found.low, found.high} <= {0.0, None}


@settings(deadline=None, max_examples=40)
@given(scored=SCORED)
def test_a_difference_changes_its_sign_with_the_order_of_rows(scored):
    rows = rows_of(scored)
    others = rows_of([(score and 1 - score, *rest) for score, *rest in scored])
    one = difference(rows, others, GOOD, num_samples=SAMPLES)
    other = difference(others, rows, GOOD, num_samples=SAMPLES)
    if one.value is not None:
        assert one.value == -other.value
    if one.low is not None:
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


def test_a_difference_takes_only_cases_that_both_have():
    first = [graded("a", 1.0), graded("b", 1.0), graded("c", None), graded("d", 0.0)]
    second = [graded("a", 0.5), graded("c", 0.0), graded("d", 0.0), graded("e", 1.0)]
    found = difference(first, second, GOOD)
    assert (found.value, found.n) == (0.25, 2)  # of a and d
    assert difference(first[:2], second[2:], GOOD).value is None


def test_pairing_takes_out_what_is_hard_about_a_case():
    """The same shift of every case: no error of the difference, though one of both figures."""
    scores = np.random.default_rng(0).random(40) / 2
    first, second = column(list(scores + 0.25)), column(list(scores))
    found = difference(first, second, GOOD)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert cell(first, GOOD).high - cell(first, GOOD).low > 0.05


def test_the_mean_over_attacks_is_that_of_their_figures_on_the_same_cases():
    """Not that of all answers, as one attack may have fewer."""

    def under(attack, scores, shift=0):
        rows = column(scores)[shift:]
        return [replace(row, answer=replace(row.answer, attack=attack)) for row in rows]

    scores = list(np.random.default_rng(2).random(30))
    pair, pap = under("pair", scores), under("pap", [1 - score for score in scores], 20)
    found = cell(pair + pap, GOOD)
    means = np.mean(scores), 1 - np.mean(scores[20:])
    assert found.value == pytest.approx(np.mean(means))
    assert (found.n, found.cases, found.answers) == (30, 30, 40)
    opposite = cell(pair + under("pap", [1 - score for score in scores]), GOOD)
    assert (opposite.low, opposite.high) == pytest.approx((0.5, 0.5))  # case by case
    shifted = [replace(row, scores={"good": row.scores["good"] + 0.1}) for row in pair + pap]
    apart = difference(shifted, pair + pap, GOOD)
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.1, 0.1, 0.1))
    assert difference(pair, pap, GOOD).n == 10


def test_a_corrected_cell_has_another_figure_and_a_wider_interval():
    rows = column([1.0] * 60 + [0.0] * 140)
    raw = cell(rows, GOOD)
    found = cell(rows, GOOD, "j", Correction(90, 100, 80, 100))
    assert found.value == pytest.approx((0.3 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert found.corrected and found.n == raw.n == 200
    assert found.high - found.low > (raw.high - raw.low) / 0.7
    assert found.low <= found.value <= found.high


def test_what_cannot_be_corrected_is_missing_and_says_why():
    blind, good = Correction(50, 100, 52, 100), Correction(90, 100, 90, 100)
    found = cell(column([0.0, 1.0]), GOOD, "j", blind)
    assert (found.value, found.low, found.corrected) == (None, None, True)
    assert "hardly tells the labels apart" in found.note and "0.02" in found.note
    assert "not 0 or 1" in cell(column([0.5, 1.0]), GOOD, "j", good).note
    tries = [graded("a", 1.0, 0), graded("a", 0.0, 1), graded("b", 0.0)]
    worst = cell(tries, Metric("m", "good", worst="high"), "j", good)
    assert worst.value is None and "worst of several" in worst.note


def test_a_share_beyond_what_the_judge_can_find_is_not_corrected_to_certainty():
    """It finds 60 % of the positives there, and calls 95 % of the rows positive here."""
    found = cell(column([1.0] * 190 + [0.0] * 10), GOOD, "j", Correction(120, 200, 200, 200))
    assert found.value is None and "beyond what the judge's errors" in found.note
    near = cell(column([1.0] * 62 + [0.0] * 38), GOOD, "j", Correction(60, 100, 95, 100))
    assert near.value == near.high == 1.0 and near.low < 1.0


def test_a_cell_is_read_as_it_was_written():
    found = cell(column([0.0, 1.0, None, 1.0]), GOOD, judge="rule")
    assert Cell.from_dict(found.to_dict()) == found
    assert Cell.from_dict(found.to_dict() | {"later": 1}) == found
