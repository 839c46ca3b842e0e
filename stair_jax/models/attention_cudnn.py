"""Attention by cuDNN, on GPUs."""

import importlib
from types import ModuleType

import jax
import jax.numpy as jnp

from stair_jax.models.attention_mask import visible


def problem(dtype: jax.typing.DTypeLike, length: int, head_dim: int) -> str:
    """What cuDNN cannot do here, or ""."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, not in {jnp.dtype(dtype)}"
    if length % 2:
        return f"it needs rows of an even number of tokens, not of {length}"
    try:
        cudnn = _cudnn()
        largest = 256 if cudnn.check_compute_capability("9.0") else 128
    except (ImportError, AttributeError, RuntimeError) as error:
        return f"it is not there in this installation of JAX ({error})"
    if head_dim % 8 or head_dim > largest:
        return f"it needs a head_dim that is a multiple of 8 and at most {largest}, not {head_dim}"
    return ""


def most_segments(length: int) -> int:
    """Segments that a packed row of that many tokens may have, its padding counted as one.

    `packing.most_sequences` keeps to it. The attention of a row with more is NaN, which no loss
    survives unseen. The kernel's backward pass has a workspace for each row and possible segment:
    17 GB for 8 rows of 2,048 tokens with 64 of them, were it not for this number.
    """
    return max(16, length // 64)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    """One segment a row, packed segments, or trees, whose mask becomes a bias."""
    if ends is None and segment_ids is None:
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=True, implementation="cudnn"
        )
    # The kernels of packed rows want a GPU of the Hopper generation or later.
    if ends is not None or not _cudnn().check_compute_capability("9.0"):
        return _masked(query, key, value, segment_ids, ends)
    assert segment_ids is not None
    return _packed(query, key, value, segment_ids)


def _masked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    mask = visible(query.shape[1], segment_ids, ends)[:, None]
    # The mask says all; that it is causal besides lets the kernel leave out half of the blocks.
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, is_causal=True, implementation="cudnn"
    )


def _packed(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    cudnn = _cudnn()
    starts, lengths, fits = segment_bounds(segment_ids, most_segments(segment_ids.shape[1]))
    query = query * jnp.where(fits, 1, jnp.nan).astype(query.dtype)[:, None, None, None]
    # Of groups of query heads, the kernel's backward pass would take twice the memory, and JAX
    # before 0.11.1 took the offsets of packed keys for those of all query heads.
    groups = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(array, groups, axis=2) for array in (key, value))
    return cudnn.dot_product_attention(
        query,
        key,
        value,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=starts,
        kv_offsets=starts,
        scale=query.shape[-1] ** -0.5,
        mask_type=cudnn.MaskType.PADDING_CAUSAL,
    )


def segment_bounds(segment_ids: jax.Array, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the segments of each row are; padding is a segment too, so that each token is in one.

    Args:
      segment_ids: `[B, T]`, equal along each segment, different in neighbours.
      most: M >= 2.

    Returns:
      First positions `[B, M + 1]`; numbers of tokens `[B, M]`; -1 behind the last segment, as
      cuDNN wants it; and `[B]`, whether the row has no more than M segments.
    """
    is_first = segment_ids[:, 1:] != segment_ids[:, :-1]
    number = jnp.pad(jnp.cumsum(is_first, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    count = number[:, -1:] + 1
    columns = jnp.arange(most + 1, dtype=jnp.int32)
    starts = jnp.sum(number[:, :, None] < columns, axis=1, dtype=jnp.int32)
    lengths = jnp.where(columns[:-1] < count, starts[:, 1:] - starts[:, :-1], -1)
    starts = jnp.where((columns < count) & (columns < most), starts, -1)
    return starts, lengths, count[:, 0] <= most


def _cudnn() -> ModuleType:
    """JAX's private module, the only way to cuDNN's attention over packed rows."""
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    module.check_cudnn_version()
    _ = module.dot_product_attention, module.MaskType.PADDING_CAUSAL
    return module
