"""AUC against hand-computed values, and its interval against a search over all values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.search.judging.auc import auc, interval, standard_error

COUNTS = st.integers(1, 60)


def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_halves():
    # Good: 3, 1; bad: 1, 0. Pairs: 3>1, 3>0, 1=1, 1>0.
    area = auc([3.0, 1.0, 1.0, 0.0], [1, 1, -1, -1])
    assert area.value == (1 + 1 + 0.5 + 1) / 4
    assert (area.positives, area.negatives) == (2, 2)


def test_scores_that_are_all_alike_tell_nothing():
    area = auc([0.3] * 40, [1, -1] * 20)
    assert area.value == 0.5 and area.low < 0.5 < area.high < 0.7


def test_an_auc_needs_cases_of_both_sides():
    assert auc([], []) is None and auc([1.0, 2.0], [1, 1]) is None


def test_a_turned_score_has_the_turned_interval():
    scores, labels = [0.1, 0.4, 0.35, 0.8, 0.9, 0.2], [-1, 1, -1, 1, 1, -1]
    area, turned = auc(scores, labels), auc([-score for score in scores], labels)
    assert turned.value == pytest.approx(1 - area.value)


def test_standard_error_by_hand():
    """Q1 = .8/1.2 = 2/3, Q2 = 1.28/1.8, three good and two bad cases."""
    variance = 0.8 * 0.2 + 2 * (2 / 3 - 0.64) + 1 * (1.28 / 1.8 - 0.64)
    assert standard_error(0.8, 3, 2) == pytest.approx((variance / 6) ** 0.5)


def test_standard_error_of_the_example_of_hanley_and_mcneil():
    """An AUC of .893 over 58 normal and 51 abnormal images has a standard error of .03."""
    assert standard_error(0.893, 51, 58) == pytest.approx(0.0325, abs=0.0005)


@given(st.floats(0, 1), COUNTS, COUNTS)
def test_the_interval_holds_what_is_within_its_errors_of_the_estimate(value, positives, negatives):
    low, high = interval(value, positives, negatives)
    grid = np.linspace(0, 1, 401)
    errors = np.array([standard_error(p, positives, negatives) for p in grid])
    inside = grid[np.abs(grid - value) <= 1.959963984540054 * errors]
    assert 0 <= low <= value <= high <= 1
    if inside.size:
        assert low == pytest.approx(inside.min(), abs=1 / 400)
        assert high == pytest.approx(inside.max(), abs=1 / 400)


def test_a_perfect_score_on_few_cases_is_not_certain():
    low, high = interval(1.0, 5, 5)
    assert high == 1 and 0.5 < low < 0.9
    assert interval(1.0, 50, 50)[0] > low
