"""Groups of slots with common first pages, against all possible groups."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.prefix_groups import PrefixGroup, find_groups, most_members, pack_groups
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig

CONFIG = ModelConfig(61, 32, 48, 2, 4, 2, 8)


def shared_pages(tables, slots):
    rows = tables[list(slots)]
    same = np.all((rows == rows[0]) & (rows > 0), axis=0)
    return int(np.argmin(same)) if not same.all() else len(same)


def most_saved(tables, least, free):
    """By trying every group of the first free slot."""
    if not free:
        return 0
    first, *others = free
    best = most_saved(tables, least, others)
    for size in range(least, most_members(least) + 1):
        for rest in combinations(others, size - 1):
            saved = (size - 1) * shared_pages(tables, (first, *rest))
            if saved:
                left = [slot for slot in others if slot not in rest]
                best = max(best, saved + most_saved(tables, least, left))
    return best


@given(seed=st.integers(0, 2**32 - 1), least=st.integers(2, 5))
@settings(max_examples=25)
def test_groups_save_as_many_pages_as_any_others(seed, least):
    rng = np.random.default_rng(seed)
    tables = np.zeros((7, 4), np.int32)  # a tree: a page follows from the one before it
    for row in tables[: rng.integers(0, 8)]:
        page = 0
        for column in range(rng.integers(1, 5)):
            row[column] = page = 2 * page + 1 + rng.integers(0, 2)
    rng.shuffle(tables)
    groups = find_groups(tables, least)
    slots = [slot for group in groups for slot in group.slots]
    assert len(set(slots)) == len(slots)
    assert all(least <= len(group.slots) <= most_members(least) for group in groups)
    assert all(group.pages == shared_pages(tables, group.slots) > 0 for group in groups)
    saved = sum((len(group.slots) - 1) * group.pages for group in groups)
    assert saved == most_saved(tables, least, list(range(7)))


def test_groups_as_they_are_sent():
    # Slots 1, 4 and 5 share two pages, two of them three; 0 and 3 share their first; 2 is idle.
    rows = [[9, 3, 0], [300, 2, 5], [0, 0, 0], [9, 4, 0], [300, 2, 6], [300, 2, 5]]
    tables = np.array(rows, np.int32)
    assert find_groups(tables, 2) == [PrefixGroup(2, [1, 5, 4]), PrefixGroup(1, [0, 3])]
    sent = [[2, 1, 5, 4, 6], [1, 0, 3, 6, 6], [0, 6, 6, 6, 6]]
    np.testing.assert_array_equal(pack_groups(tables, 2), sent)
    np.testing.assert_array_equal(pack_groups(tables, 3), sent[::2])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"share_prefixes": 1}, "0 (off), or the least number of slots that read a prefix"),
        ({"share_prefixes": 9}, "is 9, more than the 8 slots of a device: lower it, or raise"),
        ({"share_prefixes": 4, "attention": "ragged"}, '"ragged" gives no log-sum-exps to merge'),
    ],
)
def test_what_cannot_be_shared_is_refused(sizes, said):
    with pytest.raises(UserError) as caught:
        EngineConfig(num_slots=8, **sizes).resolve(CONFIG, None)
    assert said in str(caught.value)
