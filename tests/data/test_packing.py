import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.packing import Example, pack, split

LENGTH = 12

examples_strategy = st.lists(
    st.integers(1, LENGTH).flatmap(
        lambda n: st.builds(
            Example,
            st.lists(st.integers(0, 9), min_size=n, max_size=n),  # token id 0 is not padding
            st.lists(st.integers(0, 1), min_size=n, max_size=n),
        )
    ),
    min_size=1,
    max_size=12,
)


@given(examples_strategy)
def test_every_example_can_be_read_back(examples):
    packed = pack(examples, LENGTH)
    assert packed.tokens.shape[1] == LENGTH
    for index, example in enumerate(examples):
        row, column = np.nonzero(packed.sequence_ids == index)
        assert len(set(row)) == 1 and list(column) == list(range(column[0], column[-1] + 1))
        assert list(packed.tokens[row, column]) == list(example.tokens)
        assert list(packed.positions[row, column]) == list(range(len(example)))
        assert list(packed.targets[row, column][:-1]) == list(example.tokens[1:])
        assert list(packed.weights[row, column]) == [*example.loss_mask[1:], 0]
        assert len(set(packed.segment_ids[row, column])) == 1
        assert packed.last[index] == row[-1] * LENGTH + column[-1]
    padding = packed.segment_ids == 0
    assert padding.sum() == packed.tokens.size - sum(map(len, examples))
    assert not packed.weights[padding].any()
    assert (packed.sequence_ids[padding] == len(examples)).all()


@given(examples_strategy)
def test_segments_of_a_row_are_told_apart(examples):
    packed = pack(examples, LENGTH)
    for row in range(len(packed.tokens)):
        filled = packed.segment_ids[row] > 0
        pairs = set(
            zip(packed.segment_ids[row][filled], packed.sequence_ids[row][filled], strict=True)
        )
        assert len({segment for segment, _ in pairs}) == len(pairs)


def test_first_fit_fills_the_first_row_with_room():
    examples = [Example([1] * n, [1] * n) for n in (4, 5, 3, 2)]
    packed = pack(examples, 7, num_rows=3)
    assert packed.sequence_ids.tolist() == [
        [0, 0, 0, 0, 2, 2, 2],
        [1, 1, 1, 1, 1, 3, 3],
        [4] * 7,
    ]


def test_a_row_takes_no_more_examples_than_it_may_have():
    examples = [Example([1] * n, [1] * n) for n in (4, 3, 2, 1)]
    packed = pack(examples, 10, row_sequences=2)
    assert packed.sequence_ids.tolist() == [[0] * 4 + [1] * 3 + [4] * 3, [2] * 2 + [3] + [4] * 7]
    groups = [[example] for example in examples]
    assert split(groups, 10, 1) == [[0, 1, 2, 3]]
    assert split(groups, 10, 1, row_sequences=2) == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="do not fit"):
        pack(examples, 7, num_rows=1)


@given(st.lists(st.tuples(st.integers(1, LENGTH), st.integers(1, LENGTH)), min_size=1, max_size=20))
def test_groups_stay_whole_and_within_the_bound(lengths):
    rows = 5
    groups = [[Example([1] * n, [1] * n) for n in pair] for pair in lengths]
    blocks = split(groups, LENGTH, rows)
    assert sorted(index for block in blocks for index in block) == list(range(len(groups)))
    assert len(blocks) <= -(-len(groups) // (rows // 2))
    for block in blocks:
        pack([example for index in block for example in groups[index]], LENGTH, rows)


def test_a_group_larger_than_a_block_is_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        split([[Example([1] * 4, [1] * 4)] * 3], 4, 2)


def test_a_mask_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="mask of 1"):
        Example([1, 2], [1])
