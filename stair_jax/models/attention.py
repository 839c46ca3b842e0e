"""Attention behind one interface, with a backend chosen by name."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError


class Backend(NamedTuple):
    """How a backend attends.

    `causal(query, key, value, segment_ids)`: tokens `[B, T]` of packed rows see the earlier
    tokens of their own segment, and themselves. `segment_ids` None: one segment a row.

    `cached(query, keys, values, positions)`: the query at position p sees the slots 0..p of the
    `[B, S, kv_heads, head_dim]` cache of its row.

    query is `[B, T, heads, head_dim]`, heads a multiple of kv_heads; so is the result.
    """

    causal: Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]
    cached: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def get_backend(name: str) -> Backend:
    """The backend of that name, or a UserError that lists those there are."""
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise UserError(f"attention backend {name!r} is unknown: choose one of {known}")
    return BACKENDS[name]


def _causal(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array | None
) -> jax.Array:
    index = jnp.arange(query.shape[1])
    mask = (index[:, None] >= index)[None]
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return _grouped_attention(query, key, value, mask)


def _cached(
    query: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array
) -> jax.Array:
    mask = positions[:, :, None] >= jnp.arange(keys.shape[1])
    # On a mesh heads may lie apart, and a product over all of them would gather the cache.
    if query.shape[1] == 1 and jax.sharding.get_abstract_mesh().size <= 1:
        return _one_query_attention(query, keys, values, mask)
    return _grouped_attention(query, keys, values, mask)


def _grouped_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """Attention with `mask[B or 1, T, S]`; keys and values are not repeated for their groups."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    logits = jnp.einsum("btkgh,bskh->bkgts", grouped, key, preferred_element_type=jnp.float32)
    weights = _softmax(logits, mask[:, None, None], head_dim).astype(value.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, value).reshape(query.shape)


def _one_query_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """The same for T = 1, with each query widened by zeros to all KV heads.

    Cache rows then enter plain products over kv_heads x head_dim as they lie in memory. Products
    head by head make XLA transpose the whole cache at every step, which costs twice the time on
    CPUs.
    """
    batch, _, heads, head_dim = query.shape
    slots, kv_heads = key.shape[1:3]
    shape = (batch, kv_heads, heads // kv_heads, head_dim)
    own = jnp.eye(kv_heads, dtype=query.dtype)
    wide = jnp.einsum("bkgh,kj->bkgjh", query.reshape(shape), own)
    wide = wide.reshape(batch, heads, kv_heads * head_dim)
    key, value = key.reshape(batch, slots, -1), value.reshape(batch, slots, -1)
    logits = jnp.einsum("bnd,bsd->bns", wide, key, preferred_element_type=jnp.float32)
    weights = _softmax(logits, mask, head_dim).astype(value.dtype)
    mixed = jnp.einsum("bns,bsd->bnd", weights, value)
    mixed = mixed.reshape(*shape[:3], kv_heads, head_dim)
    return jnp.einsum("bkgkh->bkgh", mixed).reshape(query.shape)


def _softmax(logits: jax.Array, mask: jax.Array, head_dim: int) -> jax.Array:
    """Softmax over the last axis in float32, of the scaled logits that `mask` lets through."""
    logits = jnp.where(mask, logits * head_dim**-0.5, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits, axis=-1)


BACKENDS = {"xla": Backend(_causal, _cached)}
