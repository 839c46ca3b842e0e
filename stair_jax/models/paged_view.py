"""What a call over pages is given, and what a backend of it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig

# The arrays of one layer, or of all layers where they are stacked: a pytree whose leaves have
# pages on axis 0 and heads on axis 2, so that it is copied and sharded without knowing more.
LayerPages = Any


class View(NamedTuple):
    """Which tokens a call of B rows x T tokens brings, and where their sequences lie.

    Attributes:
        table: [B, W] int32, page ids of each row's sequence in order; entries beyond are 0.
        start: [B] int32, position of the row's first token.
        length: [B] int32, how many of the row's T tokens count; 0: the row is at rest.
        base: [] int32 or 0, added to every page id: layer x pages, where layers share one array.
    """

    table: jax.Array
    start: jax.Array
    length: jax.Array
    base: jax.Array | int = 0


class PagedBackend(NamedTuple):
    """How a backend keeps pages and attends over them.

    `empty(config, num_pages, page_size, num_layers, kv_dtype)`: pages of zeros, those of all
    shards of a mesh together. `kv_dtype` is `config.dtype`, "int8" or "float8_e4m3fn". More than
    one layer only where `stacked`. Raises a UserError where config or dtype is not supported.

    `attend(query, key, value, pages, view)`: writes token t < length[b] of row b at position
    start[b] + t of its sequence (page `base + table[b, position // page_size]`, offset
    `position % page_size`) and the others nowhere. Then token t sees positions 0 to start[b] + t.
    So rows may be consecutive chunks of one sequence. query is [B, T, heads, head_dim] and not
    scaled yet, key and value are [B, T, kv_heads, head_dim]; gives ([B, T, heads, head_dim],
    pages). What tokens that do not count give is finite.

    Attributes:
        stacked: one set of arrays for all layers, for a scan over them; else one a layer.
        empty: see above.
        attend: see above.
    """

    stacked: bool
    empty: Callable[[ModelConfig, int, int, int, str], LayerPages]
    attend: Callable[
        [jax.Array, jax.Array, jax.Array, LayerPages, View], tuple[jax.Array, LayerPages]
    ]


def token_slots(view: View, length: int, pages: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Page and offset `[B, T]` that each of the T = `length` tokens is written to by `put`.

    Tokens that do not count get pages that are not there, each another one: `put` drops them.
    """
    num_pages, page_size = pages.shape[:2]
    index = jnp.arange(length, dtype=jnp.int32)
    positions = view.start[:, None] + index
    columns = jnp.minimum(positions // page_size, view.table.shape[1] - 1)
    found = jnp.take_along_axis(view.table, columns, axis=1) + view.base
    beyond = num_pages + jnp.arange(len(view.start) * length, dtype=jnp.int32)
    found = jnp.where(index < view.length[:, None], found, beyond.reshape(-1, length))
    return found, positions % page_size


def put(pages: jax.Array, new: jax.Array, slots: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Writes `new[B, T, ...]` into `pages[N, page_size, ...]`, in place if it can be.

    No slot may be named twice: a GPU would otherwise write one element after the other.
    """
    return pages.at[slots].set(new.astype(pages.dtype), mode="drop", unique_indices=True)
