"""Paged attention in plain XLA, gathering pages block by block: any platform; the reference."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.kv_pages import KVPages, empty_pages, write
from stair_jax.models.paged.view import PagedBackend, View

# Tokens per row and block: small enough for keys, values and logits to stay in a CPU's cache.
_BLOCK_TOKENS = 32
# Finite: -inf - -inf in the online softmax would be NaN.
_HIDDEN = jnp.finfo(jnp.float32).min


def _empty(
    config: ModelConfig, num_pages: int, page_size: int, num_layers: int, kv_dtype: str
) -> KVPages:
    if num_layers != 1:
        raise ValueError("gather keeps the pages of each layer apart")
    return empty_pages(config, num_pages, page_size, kv_dtype)


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, pages: KVPages, view: View
) -> tuple[jax.Array, KVPages]:
    pages = write(pages, key, value, view)
    return attend_written(query, pages, view), pages


def attend_written(query: jax.Array, pages: KVPages, view: View) -> jax.Array:
    """Attention over pages that already hold the new tokens.

    Online softmax (https://arxiv.org/abs/2205.14135) over blocks of the sequences, up to the end of
    the longest one. Blocks beyond the end of a row add exact zeros, so that its result has the same
    bits whatever the other rows hold.

    Args:
        query: [B, T, heads, head_dim].
        pages: the pages of one layer.
        view: see `view.View`.

    Returns:
        [B, T, heads, head_dim].
    """
    batch, length, heads, head_dim = query.shape
    page_size, kv_heads = pages.keys.shape[1:3]
    table, width = _in_blocks(view.table, page_size)
    tokens = width * page_size
    grouped = (batch, length, kv_heads, heads // kv_heads, head_dim)
    # [B, kv_heads, G * T, head_dim]: one matrix product per KV head covers its query heads.
    rows = query.reshape(grouped).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, -1, head_dim)
    positions = view.start[:, None] + jnp.arange(length)
    positions = jnp.tile(positions, (1, heads // kv_heads))[:, None, :, None]

    def add_block(index: Any, carry: tuple) -> tuple:
        largest, total, mixed = carry
        ids = lax.dynamic_slice_in_dim(table, index * width, width, axis=1) + view.base
        keys = _read(pages.keys, pages.key_scales, ids, query.dtype)
        values = _read(pages.values, pages.value_scales, ids, query.dtype)
        logits = jnp.einsum("bknh,bskh->bkns", rows, keys, preferred_element_type=jnp.float32)
        seen = positions >= index * tokens + jnp.arange(tokens)
        logits = jnp.where(seen, logits * head_dim**-0.5, _HIDDEN)
        new_largest = jnp.maximum(largest, jnp.max(logits, axis=-1, keepdims=True))
        # Exact zeros for what is not visible, whatever the running maximum is.
        weights = jnp.where(seen, jnp.exp(logits - new_largest), 0.0)
        shrink = jnp.exp(largest - new_largest)
        total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(values.dtype)
        new = jnp.einsum("bkns,bskh->bknh", weights, values, preferred_element_type=jnp.float32)
        return new_largest, total, mixed * shrink + new

    last = jnp.where(view.length > 0, view.start + view.length - 1, 0)
    largest = jnp.full((*rows.shape[:3], 1), _HIDDEN)
    start = (largest, jnp.zeros_like(largest), jnp.zeros(rows.shape, jnp.float32))
    _, total, mixed = lax.fori_loop(0, jnp.max(last) // tokens + 1, add_block, start)
    out = (mixed / total).reshape(batch, kv_heads, -1, length, head_dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)


def _in_blocks(table: jax.Array, page_size: int) -> tuple[jax.Array, int]:
    """Pads the table to a multiple of a block's columns; returns it and the columns per block."""
    columns = table.shape[1]
    width = min(max(1, _BLOCK_TOKENS // page_size), columns)
    return jnp.pad(table, ((0, 0), (0, -columns % width))), width


def _read(
    pages: jax.Array, scales: jax.Array | None, ids: jax.Array, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Reads pages as tokens.

    Args:
        pages: [N, page_size, kv_heads, head_dim].
        scales: [N, page_size, kv_heads] float32 for 8-bit pages, or None.
        ids: [B, W] int32 page ids.
        dtype: of the result.

    Returns:
        [B, W * page_size, kv_heads, head_dim].
    """
    tokens = pages.at[ids].get(mode="promise_in_bounds")
    if scales is not None:
        scale = scales.at[ids].get(mode="promise_in_bounds")
        tokens = tokens.astype(jnp.float32) * scale[..., None]
    return tokens.astype(dtype).reshape(len(ids), -1, *pages.shape[2:])


BACKEND = PagedBackend(False, _empty, _attend)
