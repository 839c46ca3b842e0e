"""Attention over whole sequences behind one interface, with a backend chosen by name."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError

Backend: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]
"""`attend(query, key, value, segment_ids)`: tokens `[B, T]` of packed rows see the earlier tokens
of their own segment, and themselves. `segment_ids` None: one segment a row.

query is `[B, T, heads, head_dim]`, and so is the result; key and value are
`[B, T, kv_heads, head_dim]`, where heads is a multiple of kv_heads.
"""


def get_backend(name: str) -> Backend:
    """The backend of that name, or a UserError that lists those there are."""
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise UserError(f"attention backend {name!r} is unknown: choose one of {known}")
    return BACKENDS[name]


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array | None
) -> jax.Array:
    """Products over all pairs of tokens; keys and values are not repeated for their groups."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    index = jnp.arange(length)
    mask = (index[:, None] >= index)[None]
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    logits = jnp.einsum("btkgh,bskh->bkgts", grouped, key, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits * head_dim**-0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, value).reshape(query.shape)


BACKENDS: dict[str, Backend] = {"xla": _attend}
