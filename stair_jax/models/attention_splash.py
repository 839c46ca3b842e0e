"""Attention by the splash kernels of JAX, on TPUs."""

import importlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.models.attention_mask import visible
from stair_jax.models.remat import ATTENTION

LANES = 128  # what the kernels want the length of a block to be a multiple of
_BLOCKS = (512, 384, 256, LANES)


def problem(dtype: jax.typing.DTypeLike) -> str:
    """What the kernels cannot do here, or ""."""
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        return f"it computes in float32 or bfloat16, not in {jnp.dtype(dtype)}"
    return ""


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Rows are padded to whole blocks; `interpret` runs the kernels without a TPU, slowly."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    padding = -length % LANES
    query = (query.astype(jnp.float32) * head_dim**-0.5).astype(query.dtype)
    # Padding comes last, where no token sees it.
    query, key, value = (_padded(array, padding) for array in (query, key, value))
    grouped = query.reshape(batch, -1, kv_heads, heads // kv_heads, head_dim)
    arrays = (grouped.transpose(0, 2, 3, 1, 4), key.swapaxes(1, 2), value.swapaxes(1, 2))
    if segment_ids is not None:
        segment_ids = _padded(segment_ids, padding)
    if ends is None:
        out = _packed(*arrays, segment_ids, interpret)
    else:
        out = _trees(*arrays, segment_ids, _padded(ends, padding), interpret)
    out = out.transpose(0, 3, 1, 2, 4).reshape(query.shape)
    return out[:, :length]


def _packed(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    interpret: bool,
) -> jax.Array:
    """`[B, K, G, T, H]` of queries of that shape, and keys and values `[B, K, T, H]`."""
    groups, length = query.shape[2:4]
    masks = _module("mask")
    causal = masks.MultiHeadMask([masks.CausalMask((length, length))] * groups)
    kernel = _kernel(causal, length, interpret)
    if segment_ids is None:
        return jax.vmap(jax.vmap(kernel))(query, key, value)
    ids = _module("kernel").SegmentIds(segment_ids, segment_ids)
    return jax.vmap(jax.vmap(kernel, (0, 0, 0, None)))(query, key, value, ids)


def _trees(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array,
    interpret: bool,
) -> jax.Array:
    """As `_packed`, one row after another: each has a mask of its own, one for all its heads.

    The kernels skip the blocks in which no token sees another one.
    """
    mask = visible(query.shape[3], segment_ids, ends)

    def row(arrays: tuple[jax.Array, ...]) -> jax.Array:
        query, key, value, mask = arrays
        return jax.vmap(_kernel(mask[None], query.shape[2], interpret))(query, key, value)

    return jax.lax.map(row, (query, key, value, mask))


def _kernel(mask: Any, length: int, interpret: bool) -> Any:
    """Queries `[G, T, H]` of one KV head, keys and values `[T, H]`, segment ids: `[G, T, H]`."""
    kernels = _module("kernel")
    block = next(size for size in _BLOCKS if length % size == 0)
    kernel = kernels.make_splash_mqa(
        mask,
        block_sizes=kernels.BlockSizes(*(block,) * 8),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
    # A flag that only names the scope; as a traced value it could not be asked.
    for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        setattr(kernel, name, getattr(kernel, name)._replace(is_dynamic_mask=None))
    return kernel


def _module(name: str) -> ModuleType:
    # Imported where it is needed: that takes half a second.
    package = "jax.experimental.pallas.ops.tpu.splash_attention"
    return importlib.import_module(f"{package}.splash_attention_{name}")


def _padded(array: jax.Array, padding: int) -> jax.Array:
    """Zeros behind the tokens, which are the second axis."""
    return jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2))
