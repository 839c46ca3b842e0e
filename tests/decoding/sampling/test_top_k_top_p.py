"""The kept tokens against a sort in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stair_jax.decoding.sampling.sharded_vocab import ShardedVocab
from stair_jax.decoding.sampling.top_k_top_p import top_k_top_p_mask

_kept = jax.jit(
    lambda logits, top_k, top_p, flag: top_k_top_p_mask(ShardedVocab(), logits, top_k, top_p, flag)
)


def find(logits, top_k, top_p):
    """The kept ids of one row, which is shifted so that its maximum is 0."""
    logits = jnp.asarray(logits, jnp.float32)[None]
    top_k, top_p = jnp.int32([top_k]), jnp.float32([top_p])
    mask = _kept(logits - logits.max(), top_k, top_p, jnp.any(top_k > 0))
    return np.flatnonzero(np.asarray(mask)[0])


def cumulate(logits, top_k):
    """Ids by descending logit (ties by id), and the mass before each and after the last."""
    logits = np.asarray(logits, np.float32).astype(np.float64)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    weights = np.exp(logits[order] - logits.max())
    return order, np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])


def test_top_k_by_hand():
    logits = [1.0, 3.0, 2.0, 3.0, -np.inf, 1.0]
    assert find(logits, 1, 1.0).tolist() == [1]
    assert find(logits, 2, 1.0).tolist() == [1, 3]
    assert find(logits, 3, 1.0).tolist() == [1, 2, 3]
    assert find(logits, 4, 1.0).tolist() == [0, 1, 2, 3]
    assert find(logits, 6, 1.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert find(logits, 99, 1.0).tolist() == [0, 1, 2, 3, 4, 5]


def test_top_p_by_hand():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert find(logits, 0, 1e-9).tolist() == [1]
    assert find(logits, 0, 0.39).tolist() == [1]
    assert find(logits, 0, 0.41).tolist() == [1, 3]
    assert find(logits, 0, 0.71).tolist() == [1, 2, 3]
    assert find(logits, 0, 0.91).tolist() == [0, 1, 2, 3]
    # Renormalised over the top 2, 0.4 becomes 0.571.
    assert find(logits, 2, 0.56).tolist() == [1]
    assert find(logits, 2, 0.58).tolist() == [1, 3]


def test_equal_logits_are_cut_after_the_lower_ids():
    # 0.2 each: the third token crosses 0.45.
    assert find(np.zeros(5), 0, 0.45).tolist() == [0, 1, 2]
    assert find(np.zeros(5), 4, 0.45).tolist() == [0, 1]
    # The first has 0.5, the others 0.1 each: renormalised, the top 3 are 5/7, 1/7, 1/7.
    logits = np.log([1, 1, 5, 1, 1, 1])
    assert find(logits, 0, 0.65).tolist() == [0, 1, 2]
    assert find(logits, 3, 0.8).tolist() == [0, 2]
    assert find(logits, 3, 0.9).tolist() == [0, 1, 2]


def test_weights_that_vanish_are_no_trouble():
    assert find([0.0, -1e4, -2e4, -np.inf], 0, 0.9999).tolist() == [0]
    assert find([0.0, -1e4, -2e4, -np.inf], 3, 1.0).tolist() == [0, 1, 2]
    assert find([0.0, -1e-30, -1e4], 0, 0.75).tolist() == [0, 1]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1, 2, 97, 256]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 4.0, 30.0]),
    levels=st.sampled_from([0, 1, 8]),
    padding=st.integers(0, 3),
    data=st.data(),
)
def test_the_set_is_that_of_a_sort(seed, size, scale, levels, padding, data):
    logits = (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)
    if levels:
        logits = np.round(logits * levels) / levels  # with many ties
    if padding < size:
        logits[size - padding :] = -np.inf
    top_k = data.draw(st.one_of(st.just(0), st.integers(1, size + 5)), "top_k")
    order, before = cumulate(logits, top_k)
    if data.draw(st.booleans(), "unlimited"):
        assert find(logits, top_k, 1.0).tolist() == sorted(order)
        return
    # Halfway between two cumulative sums, so that rounding cannot decide.
    rank = data.draw(st.integers(1, len(order)), "kept")
    assume(before[rank] - before[rank - 1] > 2e-5)
    top_p = (before[rank] + before[rank - 1]) / 2
    assert find(logits, top_k, top_p).tolist() == sorted(order[:rank])


@pytest.mark.parametrize("scale", [0.3, 2.0])
@pytest.mark.parametrize("top_k", [0, 5000])
def test_a_large_vocabulary(scale, top_k):
    logits = np.random.default_rng(0).normal(size=128_256).astype(np.float32) * scale
    order, before = cumulate(logits, top_k)
    for wanted in (0.5, 0.9):
        # The last rank below the wanted mass whose token is likely enough for float32 to tell.
        gaps = np.diff(before)
        rank = np.flatnonzero((before[:-1] <= wanted) & (gaps > 8e-6))[-1] + 1
        assert rank > 64
        top_p = (before[rank] + before[rank - 1]) / 2
        assert find(logits, top_k, top_p).tolist() == sorted(order[:rank])
