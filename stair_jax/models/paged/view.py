"""The interface of paged-attention backends, and the writing of pages that they share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig

# The pages of one layer, or of all layers if they are stacked: a pytree whose leaves have pages on
# axis 0 and heads on axis 2, so that they can be copied and sharded without knowing the backend.
LayerPages = Any


class View(NamedTuple):
    """Which tokens a call of B rows x T tokens brings, and where their sequences are in the cache.

    Attributes:
        table: [B, W] int32, page ids of each row's sequence in order, padded with 0.
        start: [B] int32, position of the row's first token in its sequence.
        length: [B] int32, number of the row's T tokens that are not padding; 0 for an idle row.
        base: [] int32 or 0, added to every page id. Where the layers share one array, it is layer *
            pages per layer.
    """

    table: jax.Array
    start: jax.Array
    length: jax.Array
    base: jax.Array | int = 0


class PagedBackend(NamedTuple):
    """A layout of pages, and attention over them.

    Attributes:
        stacked: whether one set of arrays holds all layers, for a loop over them; otherwise each
            layer has its own.
        empty: `empty(config, num_pages, page_size, num_layers, kv_dtype)` creates zeroed pages.
            `num_pages` counts those of all shards of a mesh; `num_layers` is 1 unless stacked;
            `kv_dtype` is `config.dtype`, "int8" or "float8_e4m3fn". Raises a UserError if config or
            dtype is not supported.
        attend: `attend(query, key, value, pages, view)` first writes the new keys and values, then
            attends. query is [B, T, heads, head_dim], not scaled; key and value are [B, T,
            kv_heads, head_dim]. Returns the attention [B, T, heads, head_dim] and the pages.

    Token t < length[b] of row b is written at position p = start[b] + t of its sequence, i.e. to
    page `base + table[b, p // page_size]` at offset `p % page_size`; padding is not written. Token
    t then attends to the positions 0 to p. As all tokens are written before any attends, rows may
    be consecutive chunks of one sequence. The result for padding is arbitrary but finite.
    """

    stacked: bool
    empty: Callable[[ModelConfig, int, int, int, str], LayerPages]
    attend: Callable[
        [jax.Array, jax.Array, jax.Array, LayerPages, View], tuple[jax.Array, LayerPages]
    ]


def token_slots(view: View, length: int, pages: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The page and the offset, each [B, T] int32, that `put` writes each token to.

    Padding gets page ids that are out of range, so that `put` drops it, and distinct.

    Args:
        view: the view of B rows.
        length: T.
        pages: [N, page_size, ...].
    """
    num_pages, page_size = pages.shape[:2]
    index = jnp.arange(length, dtype=jnp.int32)
    positions = view.start[:, None] + index
    # Padding of a row may lie beyond the table.
    columns = jnp.minimum(positions // page_size, view.table.shape[1] - 1)
    found = jnp.take_along_axis(view.table, columns, axis=1) + view.base
    # Not page 0 for all: writes to one and the same element are serialised on a GPU.
    beyond = num_pages + jnp.arange(len(view.start) * length, dtype=jnp.int32)
    found = jnp.where(index < view.length[:, None], found, beyond.reshape(-1, length))
    return found, positions % page_size


def put(pages: jax.Array, new: jax.Array, slots: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Writes new[B, T, ...] into pages[N, page_size, ...], in place if XLA can reuse the buffer.

    Slots must be distinct: `unique_indices` lets a GPU write them in parallel.
    """
    return pages.at[slots].set(new.astype(pages.dtype), mode="drop", unique_indices=True)
