"""FLOPs of packed rows against an explicit mask, and against rows of one segment."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.models import flops
from stair_jax.testing.tiny_models import tiny_config

CONFIG = tiny_config(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)


def seen_by_mask(segment_ids, ends):
    """Pairs by an explicit mask: t sees s <= t of its segment with t < ends[s], and itself."""
    count = 0
    for row, row_ends in zip(segment_ids, ends, strict=True):
        for t, segment in enumerate(row):
            for s in range(t + 1):
                visible = row[s] == segment and t < row_ends[s]
                count += bool(segment) and (visible or s == t)
    return count


@st.composite
def packed_rows(draw):
    """Two packed rows with padding at the end, and `ends` within the segments."""
    rows = []
    for _ in range(2):
        lengths = draw(st.lists(st.integers(1, 5), max_size=4))
        ids = [number for number, length in enumerate(lengths, 1) for _ in range(length)]
        rows.append(ids[:16] + [0] * (16 - len(ids[:16])))
    ends = [[draw(st.integers(place, 16)) for place in range(16)] for _ in range(2)]
    return np.array(rows, np.int32), np.array(ends, np.int32)


@given(packed_rows())
def test_the_pairs_of_attention_are_those_of_the_mask(rows):
    segment_ids, ends = rows
    assert flops.seen_pairs(segment_ids, ends) == seen_by_mask(segment_ids, ends)
    whole = np.full_like(ends, 16)
    assert flops.seen_pairs(segment_ids) == seen_by_mask(segment_ids, whole)


def test_a_full_row_costs_what_a_row_of_one_segment_does():
    ones = np.ones((2, 3, 8), np.int32)
    micro = {"segment_ids": ones, "weights": ones.astype(np.float32)}
    rows = flops.RowShape(6, 8, logits=8)
    assert flops.micro_training_flops(CONFIG, micro) == flops.training_flops(CONFIG, rows)
    headless = flops.training_flops(CONFIG, dataclasses.replace(rows, logits=0))
    assert flops.micro_training_flops(CONFIG, micro, head=False) == headless


def test_padding_and_unweighted_logits_cost_nothing():
    """Segments of 3 and 2 tokens, two tokens weighted: by hand."""
    micro = {
        "segment_ids": np.array([[1, 1, 1, 2, 2, 0, 0, 0]]),
        "weights": np.array([[0, 1, 0, 1, 0, 0, 0, 0]], np.float32),
    }
    kernels = 3 * (16 * 8 * (4 + 2 + 2 + 4) + 3 * 16 * 24)
    attention = 3 * 4 * (4 * 8) * (6 + 3)  # layers, two products, width, pairs
    logits = 2 * 40 * 16 * 2
    assert flops.micro_training_flops(CONFIG, micro) == 3 * (2 * kernels * 5 + attention + logits)
