"""Top-k and top-p thresholds without a full sort: bisection over the bits of the logits.

A sort of 128k logits per row is slow on accelerators, and over a sharded vocabulary it would have
to gather them. Here every step of a bisection is one masked reduction of the row, plus a sum of one
number per row over the devices. Bisection over the bits of float32 is exact after 31 steps,
whatever the range of the values.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stair_jax.decoding.sampling.sharded_vocab import ShardedVocab

# The values of `_order` for -inf and 0, between which the order of every tempered logit lies.
_LOWEST = np.int32(-0x7F800001)
_ZERO = np.int32(0)


def top_k_top_p_mask(
    vocab: ShardedVocab, logits: jax.Array, top_k: jax.Array, top_p: jax.Array, any_top_k: jax.Array
) -> jax.Array:
    """Which tokens pass top-k and then top-p; among equal logits, the lower ids are kept.

    Args:
        vocab: how the vocabulary is sharded.
        logits: [B, V] float32 tempered logits, shifted so that the maximum of each row is 0.
        top_k: [B] int32; 0 means no limit.
        top_p: [B] float32; 1 or more means no limit.
        any_top_k: [] bool, whether any of `top_k` is a limit; equal on all devices.

    Returns:
        [B, V] bool.
    """
    order = _order(logits)
    weights = jnp.exp(logits)
    ids = vocab.ids(logits.shape[-1])
    vocab_size = vocab.vocab_size(logits.shape[-1])

    def number(mask: jax.Array) -> jax.Array:
        return vocab.sum(jnp.sum(mask, axis=-1, dtype=jnp.int32))

    def mass(threshold: jax.Array) -> jax.Array:
        return vocab.sum(jnp.sum(jnp.where(order >= threshold[:, None], weights, 0.0), axis=-1))

    # 1. `least`: the k-th largest logit, as an order. `equal` is how many tokens with that very
    # logit belong to the top k. `wanted` is the mass at which top-p is reached, over the top k
    # only.
    lowest = jnp.full_like(top_k, _LOWEST)
    zero = jnp.full_like(top_k, _ZERO)
    size = jnp.where(top_k > 0, jnp.minimum(top_k, vocab_size), vocab_size)
    least = lax.cond(
        any_top_k,
        lambda: _largest(lambda t: number(order >= t[:, None]) >= size, lowest, zero, 31),
        lambda: vocab.min(jnp.min(order, axis=-1)),
    )
    least = jnp.where(top_k > 0, least, vocab.min(jnp.min(order, axis=-1)))
    equal = size - number(order > least[:, None])
    wanted = top_p * (mass(least + 1) + equal * jnp.exp(_value(least)))

    # 2. `crossing`: the logit at which the cumulative mass reaches `wanted`. A token is kept if the
    # mass before it is below `wanted`, so the crossing token is kept. `needed` is how many tokens
    # with that very logit are kept, as each adds the same weight.
    limited = top_p < 1
    crossing = _largest(lambda t: mass(t) >= wanted, least, zero, 31)
    crossing = jnp.where(limited, crossing, least)
    # Not zero: at very low temperatures exp underflows.
    weight = jnp.maximum(jnp.exp(_value(crossing)), jnp.finfo(jnp.float32).tiny)
    needed = jnp.ceil((wanted - mass(crossing + 1)) / weight)
    # At least 1: rounding must not drop the crossing token.
    needed = jnp.clip(needed, 1, vocab_size).astype(jnp.int32)
    needed = jnp.where(limited, needed, vocab_size)
    needed = jnp.where(crossing == least, jnp.minimum(needed, equal), needed)

    # 3. `last`: the id of the last of these tokens, so that ties are broken by id.
    ties = order == crossing[:, None]
    last = _largest(
        lambda i: number(ties & (ids < i[:, None])) < needed,
        jnp.zeros_like(top_k),
        jnp.full_like(top_k, vocab_size - 1),
        vocab_size.bit_length(),
    )
    return (order > crossing[:, None]) | (ties & (ids <= last[:, None]))


def _largest(
    holds: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array, num_steps: int
) -> jax.Array:
    """Finds by bisection the largest int32 in [low, high] that satisfies a monotone predicate.

    The number of steps is fixed instead of data dependent, as `holds` may be a collective.

    Args:
        holds: maps [B] int32 to [B] bool; true at `low`, and never true again above the first
            number at which it is false. It is not relied upon at `low` itself.
        low: [B] int32.
        high: [B] int32.
        num_steps: at least the number of bits of `high - low`.

    Returns:
        [B] int32.
    """

    def step(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        # Rounded up, so that `low = middle` makes progress; the sum of both could overflow.
        middle = low + (high - low + 1) // 2
        is_true = (middle == low) | holds(middle)
        return jnp.where(is_true, middle, low), jnp.where(is_true, high, middle - 1)

    return lax.fori_loop(0, num_steps, step, (low, high))[0]


def _order(values: jax.Array) -> jax.Array:
    """Maps float32 values <= 0 to int32 numbers of the same order; -0 is mapped as 0.

    The bits of an IEEE float are ordered like a sign-magnitude integer: flipping the magnitude bits
    of negative values gives two's complement order.
    """
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _value(order: jax.Array) -> jax.Array:
    """The float32 value of an `_order`; the inverse mapping."""
    return lax.bitcast_convert_type(jnp.where(order < 0, order ^ 0x7FFFFFFF, order), jnp.float32)
