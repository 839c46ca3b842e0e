import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.packing import Example
from stair_jax.errors import UserError
from stair_jax.training.batches import Group
from stair_jax.training.trie_batches import MAX_RUNS, TrieBatches

LONGEST = 10
PER_ROW = ("tokens", "targets", "positions", "segment_ids", "ends", "node_ids", "weights")


@st.composite
def pairs(draw, max_size=10):
    """Pairs of three prompts that differ in their first token; steps use only two tokens."""
    groups, keys = [], []
    for number in range(draw(st.integers(1, max_size))):
        key = draw(st.integers(0, 2))
        path = [key + 5, *draw(st.lists(st.integers(0, 1), max_size=4))]
        steps = st.lists(st.integers(0, 1), min_size=1, max_size=LONGEST - len(path))
        examples = tuple(
            Example([*path, *step], [0] * len(path) + [1] * len(step))
            for step in (draw(steps), draw(steps))
        )
        groups.append(Group(f"g{number}", examples, {"value": float(number)}))
        keys.append(key)
    return groups, keys


def spelled(micro, index, place, side):
    """The tokens of a sequence that the loss counts, in the order of their position ids."""
    runs = micro["runs"][index, place, side]
    found = np.isin(micro["node_ids"][index], runs[runs < micro["runs"][index].size])
    order = np.argsort(micro["positions"][index][found])
    return micro["targets"][index][found][order].tolist()


@given(pairs(), st.integers(1, 6), st.sampled_from([(10, 2), (10, 5), (13, 3), (20, 1), (40, 2)]))
def test_each_pair_is_in_one_batch_and_shapes_never_change(data, batch_size, shape):
    (groups, keys), (length, rows) = data, shape
    batches = TrieBatches(groups, keys, batch_size, length, rows, LONGEST)
    shapes, seen = set(), []
    for number, batch in enumerate(batches):
        micro, count = batch.arrays["micro"], int(batch.arrays["count"])
        shapes.add(tuple((name, array.shape) for name, array in micro.items()))
        assert count == len(batch.members) <= len(micro["tokens"])
        assert not micro["weights"][count:].any() and not micro["group_weight"][count:].any()
        assert (micro["segment_ids"] > 0).sum() == batch.num_tokens <= batch.num_positions
        assert not micro["weights"][micro["segment_ids"] == 0].any()
        for index, members in enumerate(batch.members):
            seen += members
            for place, member in enumerate(members):
                assert member // batch_size == number
                assert micro["group_weight"][index, place] == 1
                assert micro["value"][index, place] == member
                for side, example in enumerate(groups[member].examples):
                    counted = np.compress(example.loss_mask, example.tokens).tolist()
                    assert spelled(micro, index, place, side) == counted
            runs = micro["runs"][index]
            assert (runs[len(members) :] == runs.size).all()
    assert len(shapes) == 1
    assert sorted(seen) == list(range(len(groups)))


@given(pairs())
def test_what_a_process_makes_are_its_rows_of_the_whole(data):
    groups, keys = data
    whole, *parts = (
        TrieBatches(groups, keys, 5, 12, 4, LONGEST, part)[0]
        for part in (None, slice(0, 2), slice(2, 4))
    )
    assert {part.num_positions for part in parts} == {whole.num_positions}
    assert {(part.members, part.num_tokens) for part in parts} == {
        (whole.members, whole.num_tokens)
    }
    for name, array in whole.arrays["micro"].items():
        own = [part.arrays["micro"][name] for part in parts]
        if name in PER_ROW:
            assert np.array_equal(np.concatenate(own, axis=1), array)
        else:
            assert all(np.array_equal(part, array) for part in own)


def siblings(prompts, pairs=3):
    """Pairs of two-token steps after prompts of seven tokens; each prompt is its own key."""
    groups, keys = [], []
    for prompt in range(prompts):
        for number in range(pairs):
            sides = (
                Example([prompt] * 7 + [10 + 2 * number + side, 9], [0] * 7 + [1, 1])
                for side in (0, 1)
            )
            groups.append(Group(f"{prompt}-{number}", tuple(sides)))
            keys.append(prompt)
    return groups, keys


def test_prompts_share_rows_and_never_a_tree():
    groups, keys = siblings(3)
    batch = TrieBatches(groups, keys, 9, 40, 2, LONGEST)[0]
    micro = batch.arrays["micro"]
    assert batch.arrays["count"] == 1
    assert micro["segment_ids"].max(axis=(0, 2)).tolist() == [2, 1]
    assert batch.num_tokens == 3 * (6 + 3 * 2 * 2)
    first = micro["segment_ids"][0, 0] == 2
    assert micro["ends"][0, 0][first].min() > 18 and micro["positions"][0, 0][first][0] == 0


def test_pairs_of_one_prompt_in_two_batches_are_laid_out_twice():
    groups, keys = siblings(1, 4)
    batches = TrieBatches(groups, keys, 2, 40, 1, LONGEST)
    assert [batch.num_tokens for batch in batches] == [6 + 8, 6 + 8]


def test_a_line_says_what_was_gained():
    groups, keys = siblings(2)
    assert TrieBatches(groups, keys, 3, 36, 1, LONGEST).fill() == (
        "6 pairs of 108 tokens; laid out as trees 3.00 times fewer: "
        "36 tokens in 2 rows of 36, 50.0% padding"
    )


def test_a_step_that_many_siblings_leave_early_is_cut_from_them():
    """Each sibling branches off the longest one a token later, which adds a node to it."""
    stem = list(range(30, 70))
    groups = [
        Group(
            str(n),
            (Example([1, *stem], [0] + [1] * 40), Example([1, *stem[:n], 2], [0] + [1] * (n + 1))),
        )
        for n in range(1, 40)
    ]
    batch = TrieBatches(groups, [0] * 39, 39, 100, 4, 50)[0]
    runs = batch.arrays["micro"]["runs"]
    none = runs[0].size
    assert (runs[:, :, 0] < none).sum(-1).max() == MAX_RUNS
    for index, members in enumerate(batch.members):
        for place in range(len(members)):
            assert spelled(batch.arrays["micro"], index, place, 0) == stem


def test_rows_that_cannot_hold_a_pair_are_an_error():
    groups, keys = siblings(1)
    TrieBatches(groups, keys, 2, 20, 1, 10)
    with pytest.raises(UserError, match="microbatch_rows 1 at least 2"):
        TrieBatches(groups, keys, 2, 19, 1, 10)
    with pytest.raises(UserError, match="there are no training examples"):
        TrieBatches([], [], 2, 20, 1)
    with pytest.raises(ValueError, match="2 keys of 3 groups"):
        TrieBatches(groups, keys[:2], 2, 20, 1)
