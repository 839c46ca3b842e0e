"""Attack success at budgets, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.attacks.budget import (
    queries_to_success,
    succeeded_within,
    success_at,
    tokens_to_success,
)

FLAGS = [
    [False, True, True],  # with the second query, at 30 tokens
    [True],  # with the first, at 5
    [False, False],  # never
    [None, None],  # nothing is known
    [None, True],  # with the second, at 12
    [],  # nothing was asked
]
TOKENS = [[10, 30, 60], [5], [1, 2], [3, 4], [6, 12], []]


def test_the_first_success_counts():
    np.testing.assert_array_equal(queries_to_success(FLAGS), [2, 1, np.inf, np.nan, 2, np.nan])
    np.testing.assert_array_equal(
        tokens_to_success(FLAGS, TOKENS), [30, 5, np.inf, np.nan, 12, np.nan]
    )


def test_success_at_a_budget_is_the_mean_over_the_cases_that_are_known():
    first = queries_to_success(FLAGS)
    np.testing.assert_allclose(success_at(first, [0, 1, 2, 100]), [0, 0.25, 0.75, 0.75])
    first = tokens_to_success(FLAGS, TOKENS)
    np.testing.assert_allclose(success_at(first, [4.5, 5, 29, 30]), [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(
        succeeded_within(first, [5, 12])[:4], [[0, 0], [1, 1], [0, 0], [np.nan, np.nan]]
    )


def test_without_any_verdict_there_is_no_rate():
    assert np.isnan(success_at(queries_to_success([[None]]), [1, 2])).all()
    assert success_at(queries_to_success([]), [1]).shape == (1,)


@pytest.mark.parametrize(
    ("flags", "tokens", "message"),
    [([[True]], [[1, 2]], "1 tries and 2 costs"), ([[True, True]], [[2, 1]], "decrease")],
)
def test_costs_that_are_no_sums_of_the_tries_are_refused(flags, tokens, message):
    with pytest.raises(ValueError, match=message):
        tokens_to_success(flags, tokens)


CASES = st.lists(st.lists(st.sampled_from([True, False, None]), max_size=5), max_size=6)


@given(CASES)
def test_more_queries_never_lower_the_rate_and_all_of_them_give_best_of_tries(flags):
    rates = success_at(queries_to_success(flags), range(7))
    known = [any(case) for case in flags if any(flag is not None for flag in case)]
    if not known:
        assert np.isnan(rates).all()
        return
    assert (np.diff(rates) >= 0).all() and rates[0] == 0
    assert rates[-1] == pytest.approx(np.mean(known))
