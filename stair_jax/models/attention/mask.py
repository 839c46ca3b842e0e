"""Attention masks: causal, packed segments, and trees laid out in preorder."""

import jax
import jax.numpy as jnp


def visible(
    length: int, segment_ids: jax.Array | None = None, ends: jax.Array | None = None
) -> jax.Array:
    """The mask [B, T, T] bool ([1, T, T] if all rows are equal): whether token t (axis 1) sees s.

    In preorder the subtree of a node is a contiguous range, so one number per token describes a
    tree: t sees s if s <= t < ends[s]. A token always sees itself, whatever `ends` says, and never
    a later token.

    Args:
        length: T.
        segment_ids: [B, T] int32; tokens see their own segment only. None means one segment per
            row.
        ends: [B, T] int32, the first position behind the subtree of each token's node, whose
            descendants alone see the token. None means no trees.
    """
    index = jnp.arange(length)
    mask = (index[:, None] >= index)[None]
    if ends is not None:
        # A token always sees itself, even padding with ends of 0: a softmax needs a visible token.
        mask &= (index[:, None] < ends[:, None, :]) | (index[:, None] == index)
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask
