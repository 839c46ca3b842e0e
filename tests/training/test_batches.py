import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.packing import Example
from stair_jax.errors import UserError
from stair_jax.training.batches import Batches, Group


def make(lengths):
    return [
        Group(str(i), (Example([i + 1] * n, [0] + [1] * (n - 1)),), {"value": float(i)})
        for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 10), min_size=1, max_size=15), st.integers(1, 6))
def test_each_group_is_in_one_batch_and_shapes_never_change(lengths, batch_size):
    batches = Batches(make(lengths), batch_size, 10, 2)
    assert len(batches) == -(-len(lengths) // batch_size)
    shapes = set()
    seen = []
    for batch in batches:
        micro, count = batch.arrays["micro"], int(batch.arrays["count"])
        shapes.add(tuple((name, array.shape) for name, array in micro.items()))
        assert count == len(batch.members) <= len(micro["tokens"])
        assert not micro["weights"][count:].any() and not micro["group_weight"][count:].any()
        assert micro["group_weight"].sum() == len(batch.ids)
        assert (micro["segment_ids"] > 0).sum() == batch.num_tokens
        for index, members in enumerate(batch.members):
            seen += members
            for place, member in enumerate(members):
                assert micro["value"][index, place] == member
                flat = micro["sequence_ids"][index].ravel()
                assert (flat == place).sum() == lengths[member]
                last = micro["last"][index, place]
                assert micro["tokens"][index].ravel()[last] == member + 1
    assert len(shapes) == 1
    assert sorted(seen) == list(range(len(lengths)))


def test_a_batch_is_the_same_each_time_it_is_made():
    batches = Batches(make([3, 9, 4, 4, 7]), 2, 10, 2)
    assert [batch.ids for batch in batches] == [("0", "1"), ("2", "3"), ("4",)]
    first, again = batches[1].arrays["micro"], batches[1].arrays["micro"]
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_nothing_to_train_on_and_too_few_rows_are_errors():
    with pytest.raises(UserError, match="there are no training examples"):
        Batches([], 2, 10, 2)
    pair = Group("a", (Example([1], [1]), Example([1], [1])))
    with pytest.raises(UserError, match="microbatch_rows 1 at least 2"):
        Batches([pair], 2, 10, 1)


def test_the_state_tells_other_data_another_order_and_other_batches():
    lengths = [3, 9, 4, 4, 7]
    state = Batches(make(lengths), 2, 10, 2, pass_size=4).state(2)
    assert {**state, "order": ""} == {"order": "", "step": 2, "epoch": 1, "examples": 4}
    assert json.loads(json.dumps(state)) == state
    assert Batches(make(lengths), 2, 12, 3, slice(0, 1), 4).state(2) == state  # only cost differs
    others = (
        Batches(make(lengths)[::-1], 2, 10, 2, pass_size=4),
        Batches(make([3, 9, 4, 5, 7]), 2, 10, 2, pass_size=4),
        Batches(make(lengths), 1, 10, 2, pass_size=4),
    )
    assert all(other.state(2) != state for other in others)
    assert Batches(make(lengths), 2, 10, 2).state(3)["examples"] == 5


def test_the_fill_counts_tokens_rows_and_padding():
    batches = Batches(make([10, 9, 1, 4]), 3, 10, 2)
    assert [batch.num_positions for batch in batches] == [20, 20]
    assert batches.fill() == "24 tokens in 4 rows of 10, 40.0% padding"
