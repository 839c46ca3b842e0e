"""Contiguous key-value cache: a pytree that is an argument and a result of the model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig


class Cache(NamedTuple):
    """Keys and values of every layer; the slot of a token is its position.

    keys, values: one `[B, S, kv_heads, head_dim]` array of `config.dtype` a layer.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


def empty_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """A cache of zeros for `batch` rows of up to `length` tokens."""
    shape = (batch, length, config.num_key_value_heads, config.head_dim)
    # Each array is a buffer of its own, so that the cache can be donated.
    keys = tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_hidden_layers))
    values = tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_hidden_layers))
    return Cache(keys, values)


def write(slots: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """Writes `new[b, t]` into `slots[b, positions[b, t]]`; positions >= S are dropped.

    Args:
        slots: `[B, S, kv_heads, head_dim]`.
        new: `[B, T, kv_heads, head_dim]`.
        positions: `[B, T]`, not negative; those below S differ within a row.
    """

    # Row by row, so that a mesh knows that no row is written by another one's device.
    def write_row(slots: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
        return slots.at[positions].set(new, mode="drop")

    return jax.vmap(write_row)(slots, new.astype(slots.dtype), positions)
