import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.mixtures import draw, shuffled_passes
from stair_jax.data.records import StepPair
from stair_jax.data.shuffling import group_keys, grouped_passes


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(1, 40))
def test_each_pass_has_all_and_keeps_groups_together(keys, count):
    order = grouped_passes(keys, count, 0)
    assert len(order) == count
    size = len(keys)
    for start in range(0, count - size + 1, size):
        one = order[start : start + size]
        assert sorted(one) == list(range(size))
        groups = [list(group) for _, group in itertools.groupby(one, key=lambda i: keys[i])]
        assert len(groups) == len(set(keys))
        assert all(group == sorted(group) for group in groups)


@given(st.integers(1, 20), st.integers(1, 50), st.integers(0, 5))
def test_keys_that_differ_give_the_plain_shuffle(size, count, seed):
    assert grouped_passes(range(size), count, seed) == shuffled_passes(size, count, seed)


def test_the_order_of_the_groups_depends_on_the_seed():
    keys = [number // 2 for number in range(20)]
    assert grouped_passes(keys, 20, 1) != grouped_passes(keys, 20, 2)


PAIRS = [
    StepPair("", prompt, tuple(path), "", "")
    for prompt, path in [("a", ""), ("b", "x"), ("a", "x"), ("b", "x"), ("a", ""), ("c", "")]
]


@pytest.mark.parametrize(
    ("together", "groups"),
    [
        ("prompts", [[0, 2, 4], [1, 3], [5]]),
        ("siblings", [[0, 4], [1, 3], [2], [5]]),
        ("pairs", [[0], [1], [2], [3], [4], [5]]),
    ],
)
def test_what_the_shuffle_keeps_together(together, groups):
    order = draw(PAIRS, None, 15, 1, keys=group_keys(PAIRS, together))
    assert len(order) == 15
    for start in (0, 6):
        one = order[start : start + 6]
        assert sorted(one) == list(range(6))
        for group in groups:
            place = one.index(group[0])
            assert one[place : place + len(group)] == group


def test_sampled_paths_are_told_apart_by_their_tokens():
    pairs = [StepPair("", "a", ("x",), "", "", path_tokens=(token,)) for token in (1, 2, 1)]
    assert draw(pairs, None, 3, 0, keys=group_keys(pairs, "siblings")) in ([0, 2, 1], [1, 0, 2])
