"""Attention over whole sequences by cuDNN's flash attention, on GPUs."""

import importlib
from types import ModuleType

import jax
import jax.numpy as jnp

from stair_jax.models.attention.mask import visible


def problem(dtype: jax.typing.DTypeLike, length: int, head_dim: int) -> str:
    """Why cuDNN cannot handle these inputs, or ""."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, not in {jnp.dtype(dtype)}"
    if length % 2:
        return f"it needs rows of an even number of tokens, not of {length}"
    try:
        cudnn = _cudnn()
        largest = 256 if cudnn.check_compute_capability("9.0") else 128
    except (ImportError, AttributeError, RuntimeError) as error:
        return f"it is not available in this installation of JAX ({error})"
    if head_dim % 8 or head_dim > largest:
        return f"it needs a head_dim that is a multiple of 8 and at most {largest}, not {head_dim}"
    return ""


def most_segments(length: int) -> int:
    """Maximum number of segments in a packed row of `length` tokens, padding counted as one.

    `packing.most_sequences` respects it. A row with more gives NaN, which stops the run instead of
    training on wrong attention. The limit bounds the workspace of the kernel's backward pass, which
    grows with rows times possible segments: 17 GB for 8 rows of 2,048 tokens with 64 segments.
    """
    return max(16, length // 64)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
    most: int = 0,
) -> jax.Array:
    """Attention over rows with one segment, packed segments, or trees.

    Trees need an arbitrary mask, which cuDNN takes as a bias only. `most` is the maximum number of
    segments of a row, padding included; 0: `most_segments`.
    """
    if ends is None and segment_ids is None:
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=True, implementation="cudnn"
        )
    # The kernels for packed rows need a GPU of the Hopper generation or later.
    if ends is not None or not _cudnn().check_compute_capability("9.0"):
        return _masked(query, key, value, segment_ids, ends)
    assert segment_ids is not None
    return _packed(query, key, value, segment_ids, most or most_segments(query.shape[1]))


def _masked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    mask = visible(query.shape[1], segment_ids, ends)[:, None]
    # `is_causal` is implied by the mask, but lets the kernel skip half of the blocks.
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, is_causal=True, implementation="cudnn"
    )


def _packed(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, most: int
) -> jax.Array:
    cudnn = _cudnn()
    starts, lengths, fits = segment_bounds(segment_ids, most)
    # Makes the result of rows with too many segments NaN. Of the inputs it is the values, as they
    # are copied anyway: the product is part of that copy.
    value = value * jnp.where(fits, 1, jnp.nan).astype(value.dtype)[:, None, None, None]
    # Repeated, although the kernel supports grouped heads: its backward pass would take twice the
    # memory, and JAX before 0.11.1 computed the offsets of packed keys from the number of query
    # heads.
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
    """Finds the bounds of the segments in each row, in the form that cuDNN takes.

    Padding is a segment too, so that every token belongs to one.

    Args:
        segment_ids: [B, T] int32, constant along a segment, different in adjacent segments.
        most: M >= 2, the maximum number of segments.

    Returns:
        starts: [B, M + 1] int32, first positions, then -1.
        lengths: [B, M] int32, numbers of tokens, then -1.
        fits: [B] bool, whether the row has at most M segments.
    """
    is_first = segment_ids[:, 1:] != segment_ids[:, :-1]
    number = jnp.pad(jnp.cumsum(is_first, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    count = number[:, -1:] + 1
    columns = jnp.arange(most + 1, dtype=jnp.int32)
    # A segment starts after as many tokens as have a smaller segment number.
    starts = jnp.sum(number[:, :, None] < columns, axis=1, dtype=jnp.int32)
    lengths = jnp.where(columns[:-1] < count, starts[:, 1:] - starts[:, :-1], -1)
    starts = jnp.where((columns < count) & (columns < most), starts, -1)
    return starts, lengths, count[:, 0] <= most


def _cudnn() -> ModuleType:
    """JAX's private cuDNN module: the public API has no packed rows."""
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    module.check_cudnn_version()
    _ = module.dot_product_attention, module.MaskType.PADDING_CAUSAL
    return module
