"""Paged attention by JAX's ragged paged attention kernel (Pallas), on TPUs."""

import jax
import jax.numpy as jnp

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.kv_pages import require_kv_dtype
from stair_jax.models.paged.view import PagedBackend, View, put, token_slots
from stair_jax.models.quantization import LIMITS

_FP8 = "float8_e4m3fn"
_LANES = 128  # size of the last axis of a TPU tile
# KV pages per block. More pages, each loaded by a copy of its own, spill scalar registers; the
# kernel's default of 128 overflows the VMEM of v5e and v5p.
_PAGES_A_BLOCK = 16
# Queries per block. A block is multiplied with the keys of every row that it touches: so few for
# decoding, whose rows have one query each, and up to a whole chunk for prefill.
_FEWEST_QUERIES, _MOST_QUERIES = 8, 32
_VMEM_BYTES = 64 * 2**20


def _empty(
    config: ModelConfig, num_pages: int, page_size: int, num_layers: int, kv_dtype: str
) -> jax.Array:
    """Zeroed pages [num_layers * num_pages, page_size, 2 * kv_heads, H].

    The layout of the kernel: keys at even heads, values at odd ones, and H the head_dim padded to
    whole lanes.
    """
    require_kv_dtype(config, kv_dtype)
    if kv_dtype == "int8":
        raise UserError(
            'runtime.attention "ragged" has no scales for pages of int8: choose kv_dtype '
            f'{_FP8}, or set runtime.attention="gather"'
        )
    heads = 2 * config.num_key_value_heads
    head_dim = -(-config.head_dim // _LANES) * _LANES
    return jnp.zeros((num_layers * num_pages, page_size, heads, head_dim), kv_dtype)


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, pages: jax.Array, view: View
) -> tuple[jax.Array, jax.Array]:
    # Imported here, as other platforms do not need TPU kernels.
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    batch, length, heads, head_dim = query.shape
    _require_tiles(pages)
    pages = _write(pages, key, value, view)
    lengths, offsets = ragged_rows(view, length)
    # 8-bit pages hold plain casts without scales; a scale makes the kernel convert them.
    scale = 1.0 if pages.dtype.name in LIMITS else None
    out = ragged_paged_attention(
        _in_lanes(query).reshape(batch * length, heads, pages.shape[-1]),
        pages,
        lengths,
        view.table + view.base,
        offsets,
        jnp.array([batch], jnp.int32),
        sm_scale=head_dim**-0.5,
        k_scale=scale,
        v_scale=scale,
        num_kv_pages_per_block=min(_PAGES_A_BLOCK, view.table.shape[1]),
        num_queries_per_block=min(max(length, _FEWEST_QUERIES), _MOST_QUERIES, batch * length),
        vmem_limit_bytes=_VMEM_BYTES,
    )
    return out.reshape(batch, length, heads, -1)[..., :head_dim], pages


def _require_tiles(pages: jax.Array) -> None:
    """Checks that the heads of a token fill whole tiles of 32-bit words.

    Raises:
        UserError: they do not; says what to change.
    """
    heads = pages.shape[2]
    words, rest = divmod(heads * pages.dtype.itemsize, 4)
    if rest or (words not in (1, 2, 4) and words % 8):
        raise UserError(
            f'runtime.attention "ragged" cannot tile {heads // 2} KV heads of {pages.dtype} on a '
            "device: choose another kv_dtype, another size of the mesh's tensor axis, or "
            'runtime.attention="gather"'
        )


def ragged_rows(view: View, length: int) -> tuple[jax.Array, jax.Array]:
    """Describes B rows of T = `length` queries to the kernel.

    The kernel takes the queries of a row for the last tokens of its sequence. So all T tokens count
    as real: token t is then at position start + t, and does not see the padding behind it.

    Returns:
        kv_lens: [B] int32, tokens per sequence.
        cu_q_lens: [B + 1] int32, cumulative numbers of queries.
    """
    batch = len(view.start)
    start = jnp.where(view.length > 0, view.start, 0)
    return start + length, jnp.arange(batch + 1, dtype=jnp.int32) * length


def _write(pages: jax.Array, key: jax.Array, value: jax.Array, view: View) -> jax.Array:
    batch, length, kv_heads, _ = key.shape
    new = jnp.stack([_in_lanes(key), _in_lanes(value)], axis=3)
    new = new.reshape(batch, length, 2 * kv_heads, -1)
    if pages.dtype == _FP8:
        largest = LIMITS[_FP8]  # a cast of larger values gives NaN
        new = jnp.clip(new, -largest, largest)
    return put(pages, new, token_slots(view, length, pages))


def _in_lanes(x: jax.Array) -> jax.Array:
    """Pads the last axis with zeros to whole lanes."""
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, -x.shape[-1] % _LANES),))


BACKEND = PagedBackend(True, _empty, _attend)
