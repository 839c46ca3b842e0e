"""Sampling of one token a row, every row under settings and a key of its own.

The order of the filters: temperature, then top-k, then top-p over the renormalised top-k, where the
token that crosses top-p is kept. The settings are arrays, so that other settings never recompile.
A row's token depends on its own logits, settings, key and position only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

NUM_CANDIDATES = 64


class SamplingRows(NamedTuple):
    """Sampling settings of B rows.

    Attributes:
        temperature: [B] float32; 0 takes the largest logit.
        top_k: [B] int32; 0 sets no limit.
        top_p: [B] float32; 1 or more sets no limit.
        keys: [B, 2] uint32, the two words of a threefry key.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    keys: jax.Array


def sample(
    logits: jax.Array, rows: SamplingRows, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Samples the next token of each row.

    Args:
        logits: [B, V] float32.
        rows: the settings of the B rows.
        positions: [B] int32, where the sampled token will stand; folded into the row's key.

    Returns:
        tokens [B] int32 and their log-probabilities [B] float32 under the untempered model.
    """
    largest = jnp.max(logits, axis=-1, keepdims=True)
    greedy = _first(logits == largest)
    tokens = lax.cond(
        jnp.any(rows.temperature > 0),
        lambda: jnp.where(rows.temperature > 0, _sample(logits - largest, rows, positions), greedy),
        lambda: greedy,
    )
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jax.nn.logsumexp(logits, axis=-1)


def _sample(logits: jax.Array, rows: SamplingRows, positions: jax.Array) -> jax.Array:
    """Samples from logits [B, V] whose largest is 0; [B] tokens, meaningless where greedy."""
    keys = jax.vmap(_fold)(rows.keys, positions)
    uniform = jax.vmap(jax.random.uniform)(keys)
    sampled = rows.temperature > 0
    logits = logits / jnp.where(sampled, rows.temperature, 1.0)[:, None]
    mass = jnp.sum(jnp.exp(logits), axis=-1)
    values, ids = lax.top_k(logits, min(NUM_CANDIDATES, logits.shape[-1]))
    tokens = _sample_sorted(values, ids, rows, mass, uniform)

    unlimited = sampled & (rows.top_k == 0) & (rows.top_p >= 1)
    covered = jnp.sum(jnp.exp(values), axis=-1) >= rows.top_p * mass
    few = (rows.top_k > 0) & (rows.top_k <= values.shape[-1])
    uncovered = sampled & ~unlimited & ~few & ~((rows.top_k == 0) & covered)

    # The two other ways are exact as well, and dear: they run when some row needs them, and the
    # choice is made row by row, so that a row is never changed by its neighbours.
    tokens = lax.cond(
        jnp.any(unlimited),
        lambda: jnp.where(unlimited, _sample_all(logits, keys), tokens),
        lambda: tokens,
    )
    return lax.cond(
        jnp.any(uncovered),
        lambda: jnp.where(uncovered, _sample_full(logits, rows, mass, uniform), tokens),
        lambda: tokens,
    )


def _sample_sorted(
    values: jax.Array, ids: jax.Array, rows: SamplingRows, mass: jax.Array, uniform: jax.Array
) -> jax.Array:
    """Inverts the distribution over the C largest logits.

    Args:
        values: [B, C] tempered logits in falling order, the largest 0.
        ids: [B, C] int32, their tokens.
        rows: the settings.
        mass: [B], the sum of exp over the whole row of logits.
        uniform: [B], a draw from [0, 1).
    """
    rank = jnp.arange(values.shape[-1])
    weights = jnp.exp(values)
    in_top_k = (rows.top_k[:, None] == 0) | (rank < rows.top_k[:, None])
    weights = jnp.where(in_top_k, weights, 0.0)
    upto = jnp.cumsum(weights, axis=-1)
    total = jnp.where(rows.top_k == 0, mass, upto[:, -1])
    limited = rows.top_p[:, None] < 1
    before = upto - weights
    in_top_p = ~limited | (before < (rows.top_p * total)[:, None]) | (rank == 0)
    num_kept = jnp.sum(in_top_k & in_top_p, axis=-1)
    kept_mass = jnp.take_along_axis(upto, num_kept[:, None] - 1, axis=-1)
    index = jnp.sum(upto <= uniform[:, None] * kept_mass, axis=-1)
    index = jnp.minimum(index, num_kept - 1)
    return jnp.take_along_axis(ids, index[:, None], axis=-1)[:, 0]


def _sample_full(
    logits: jax.Array, rows: SamplingRows, mass: jax.Array, uniform: jax.Array
) -> jax.Array:
    values, ids = lax.top_k(logits, logits.shape[-1])
    return _sample_sorted(values, ids, rows, mass, uniform)


def _sample_all(logits: jax.Array, keys: jax.Array) -> jax.Array:
    """The Gumbel trick: a draw from the whole row without sorting it."""
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:]))(keys)
    return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)


def _fold(key: jax.Array, position: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), position)


def _first(mask: jax.Array) -> jax.Array:
    """The first true index of each row; a CPU reduces this faster than an argmax."""
    size = mask.shape[-1]
    index = jnp.where(mask, jnp.arange(size, dtype=jnp.int32), size - 1)
    return jnp.min(index, axis=-1)
