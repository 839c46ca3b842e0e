"""Attention over whole sequences by JAX's splash attention kernels, on TPUs."""

import importlib
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.models.attention.mask import visible
from stair_jax.models.remat import ATTENTION

LANES = 128  # block lengths must be multiples of this
# Block sizes by preference: the first that divides the padded length is used.
_BLOCKS = (512, 384, 256, LANES)


def problem(dtype: jax.typing.DTypeLike) -> str:
    """Why the kernels cannot handle this dtype, or ""."""
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
    """Attention over rows that are padded to whole blocks.

    Args:
        query: [B, T, heads, head_dim].
        key: [B, T, kv_heads, head_dim].
        value: as `key`.
        segment_ids: [B, T] or None.
        ends: [B, T] or None.
        interpret: whether to run the kernels without a TPU, slowly.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    padding = -length % LANES
    # The kernels do not scale. In float32, so that 16-bit queries are rounded once.
    query = (query.astype(jnp.float32) * head_dim**-0.5).astype(query.dtype)
    # Padding is at the end, where causal masks hide it from all tokens.
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
    """Attention with a causal mask that all rows share.

    Args:
        query: [B, kv_heads, G, T, head_dim], G query heads per KV head.
        key: [B, kv_heads, T, head_dim].
        value: as `key`.
        segment_ids: [B, T] or None.
        interpret: as for `attend`.

    Returns:
        As `query`.
    """
    groups, length = query.shape[2:4]
    masks = _module("mask")
    causal = masks.MultiHeadMask([masks.CausalMask((length, length))] * groups)
    kernel = _kernel(causal, length, interpret)
    if segment_ids is None:
        # Multi-query kernels, mapped over rows and KV heads: no key or value is repeated.
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
    """Like `_packed` with a mask per row, shared by all of its heads.

    Row by row, since each mask needs a kernel of its own. The kernels skip blocks of the mask that
    are empty.
    """
    mask = visible(query.shape[3], segment_ids, ends)

    def row(arrays: tuple[jax.Array, ...]) -> jax.Array:
        query, key, value, mask = arrays
        return jax.vmap(_kernel(mask[None], query.shape[2], interpret))(query, key, value)

    return jax.lax.map(row, (query, key, value, mask))


def _kernel(mask: Any, length: int, interpret: bool) -> Any:
    """A kernel for one KV head.

    It maps queries [G, T, H], keys and values [T, H], and segment ids, to [G, T, H].
    """
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
    # The kernel uses this flag to name a scope only. It would be traced, and Python cannot branch
    # on a traced value.
    for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        setattr(kernel, name, getattr(kernel, name)._replace(is_dynamic_mask=None))
    return kernel


def _module(name: str) -> ModuleType:
    # Imported on first use: that takes half a second.
    package = "jax.experimental.pallas.ops.tpu.splash_attention"
    return importlib.import_module(f"{package}.splash_attention_{name}")


def _padded(array: jax.Array, padding: int) -> jax.Array:
    """Appends zeros to the second axis, the tokens."""
    return jnp.pad(array, [(0, 0), (0, padding)] + [(0, 0)] * (array.ndim - 2))
