"""The sizes of the prefill calls of a round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.decoding.chunked_prefill import _PATIENCE, PrefillSizes, full_calls
from stair_jax.decoding.engine_config import EngineConfig

SIZES = (16, 8, 4)


def chosen(rounds, sizes=SIZES):
    """The calls of successive rounds, given the rows that each shard wants in each."""
    prefills = PrefillSizes(sizes)
    return [prefills.choose(wanted) for wanted in rounds]


@pytest.mark.parametrize(
    ("wanted", "calls"),
    [
        ([0], []),
        ([3], []),
        ([31], [16, 8, 4]),
        ([100], [16, 16]),
        ([12, 40], [8, 4]),
        ([0, 40], []),
        ([16, 17, 16, 30], [16]),
    ],
    ids=str,
)
def test_a_prefill_has_the_rows_that_all_shards_fill(wanted, calls):
    assert chosen([wanted]) == [calls]


def test_rows_wait_for_others_and_then_go_without_them():
    assert _PATIENCE == 3
    assert chosen([[1]] * 5) == [[], [], [], [4], []]
    assert chosen([[0, 13]] * 4) == [[], [], [], [4]]  # 7 on average
    assert chosen([[20, 4, 0]] * 4) == [[], [], [], [8]]
    # Deferred rows go as soon as another shard fills its part of the call.
    assert chosen([[0, 9], [5, 9], [1, 5]]) == [[], [4], []]


def test_who_has_waited_has_not_for_the_next_rows():
    rounds = [[0, 4], [0, 4], [0, 4], [0, 4], [0, 0], [0, 4]]
    assert chosen(rounds) == [[], [], [], [4], [], []]
    assert chosen([[3], [3], [3], [0], [3], [3]]) == [[]] * 6


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 100))
def test_all_calls_are_full_and_none_that_could_be_is_missing(wanted, rows, most):
    sizes = EngineConfig(platform="gpu", prefill_rows=rows).prefill_sizes
    calls = full_calls(wanted, sizes, most)
    assert calls == sorted(calls, reverse=True)
    assert set(calls) <= set(sizes)
    rest = min(wanted, most) - sum(calls)
    assert 0 <= rest < sizes[-1]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=8),
    st.sampled_from([(16, 8, 4), (8,), (2, 1)]),
)
def test_all_rows_are_taken_at_last(wanted, sizes):
    prefills, waited = PrefillSizes(sizes), 0
    while any(wanted):
        rows = sum(prefills.choose(wanted))
        left = [max(0, number - rows) for number in wanted]
        waited = 0 if left != wanted else waited + 1
        assert waited <= _PATIENCE
        wanted = left
