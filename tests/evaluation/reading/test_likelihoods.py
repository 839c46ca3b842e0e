"""Likelihoods of choices: what does not change, and what is missing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.reading.likelihoods import prefers_first, share_of

LOGS = st.lists(st.floats(-1e5, 0), min_size=2, max_size=6)


@given(LOGS)
def test_two_choices_share_one_point(logs):
    first, second = logs[:2]
    assert prefers_first((first, second), (1, 1)) + prefers_first((second, first), (1, 1)) == 1


@given(LOGS)
def test_the_shares_of_all_choices_add_up_to_one(logs):
    shares = [share_of(logs, [index], len(logs)) for index in range(len(logs))]
    assert sum(shares) == pytest.approx(1)
    assert share_of(logs, range(len(logs)), len(logs)) == pytest.approx(1)
    assert shares[logs.index(max(logs))] == max(shares)


@given(LOGS, st.integers(1, 50))
def test_equal_lengths_change_nothing(logs, length):
    ones = [1] * len(logs)
    assert prefers_first(logs, [length] * len(logs)) == prefers_first(logs, ones)


def test_an_impossible_choice_has_no_share():
    assert share_of([-math.inf, -3.0], [0], 2) == 0.0
    assert prefers_first([-math.inf, -3.0], [1, 1]) == 0.0


@pytest.mark.parametrize("logs", [[], [-1.0], [-1.0, math.nan], [-1.0, math.inf], [-1.0] * 3])
def test_incomplete_likelihoods_say_nothing(logs):
    assert prefers_first(logs, [1, 1]) is None
    assert share_of(logs, [0], 2) is None
