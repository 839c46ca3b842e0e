"""The tokens that top-k and top-p leave of a row, found by bisection and not by a sort."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stair_jax.decoding.split import Split

# int32 numbers in the order of float32 values: those of -inf and of 0.
_LOWEST = np.int32(-0x7F800001)
_ZERO = np.int32(0)


def kept(
    split: Split, logits: jax.Array, top_k: jax.Array, top_p: jax.Array, any_top_k: jax.Array
) -> jax.Array:
    """Which tokens stay: the top k, of them the top p, and of equal logits those of lower ids.

    Args:
        split: of the vocabulary.
        logits: [B, V] tempered, the largest of a row 0.
        top_k: [B] int32; 0 sets no limit.
        top_p: [B] float32; 1 or more sets no limit.
        any_top_k: [] bool, whether there may be a limit among `top_k`; equal on all devices.

    Returns:
        [B, V] bool.
    """
    order = _order(logits)
    weights = jnp.exp(logits)
    ids = split.ids(logits.shape[-1])
    vocab_size = split.vocab_size(logits.shape[-1])

    def number(mask: jax.Array) -> jax.Array:
        return split.sum(jnp.sum(mask, axis=-1, dtype=jnp.int32))

    def mass(threshold: jax.Array) -> jax.Array:
        return split.sum(jnp.sum(jnp.where(order >= threshold[:, None], weights, 0.0), axis=-1))

    # The k-th largest logit. Of those that are equal to it, `equal` belong to the top k.
    lowest = jnp.full_like(top_k, _LOWEST)
    zero = jnp.full_like(top_k, _ZERO)
    size = jnp.where(top_k > 0, jnp.minimum(top_k, vocab_size), vocab_size)
    least = lax.cond(
        any_top_k,
        lambda: _largest(lambda t: number(order >= t[:, None]) >= size, lowest, zero, 31),
        lambda: split.min(jnp.min(order, axis=-1)),
    )
    least = jnp.where(top_k > 0, least, split.min(jnp.min(order, axis=-1)))
    equal = size - number(order > least[:, None])
    wanted = top_p * (mass(least + 1) + equal * jnp.exp(_value(least)))

    # The logit at which the mass of the top k crosses top-p, alike; a token stays when the mass of
    # those before it is below.
    limited = top_p < 1
    crossing = _largest(lambda t: mass(t) >= wanted, least, zero, 31)
    crossing = jnp.where(limited, crossing, least)
    weight = jnp.maximum(jnp.exp(_value(crossing)), jnp.finfo(jnp.float32).tiny)
    needed = jnp.ceil((wanted - mass(crossing + 1)) / weight)
    needed = jnp.clip(needed, 1, vocab_size).astype(jnp.int32)
    needed = jnp.where(limited, needed, vocab_size)
    needed = jnp.where(crossing == least, jnp.minimum(needed, equal), needed)

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
    """The largest [B] int32 from `low` to `high` for which `holds` is true.

    It is true of `low`, and above some number no longer. The steps halve what is left: so many are
    needed as `high - low` has bits. They are a fixed number, since `holds` may reduce over devices.
    """

    def step(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low + 1) // 2
        is_true = (middle == low) | holds(middle)
        return jnp.where(is_true, middle, low), jnp.where(is_true, high, middle - 1)

    return lax.fori_loop(0, num_steps, step, (low, high))[0]


def _order(values: jax.Array) -> jax.Array:
    """int32 numbers in the order of the values, which are at most 0; -0 is 0."""
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _value(order: jax.Array) -> jax.Array:
    """The float32 value of an `_order`."""
    return lax.bitcast_convert_type(jnp.where(order < 0, order ^ 0x7FFFFFFF, order), jnp.float32)
