"""Which token of a row sees which: packed segments, and trees laid out in preorder."""

import jax
import jax.numpy as jnp


def visible(
    length: int, segment_ids: jax.Array | None = None, ends: jax.Array | None = None
) -> jax.Array:
    """`[B, T, T]`, or `[1, T, T]` where all rows are alike: whether token t (axis 1) sees s.

    Args:
      length: T.
      segment_ids: `[B, T]`; a token sees those of its own segment. None: one segment a row.
      ends: `[B, T]`, of rows that hold trees in preorder: the first position behind the subtree of
        the segment of s, so that its descendants alone see it. None: no trees.

    A token sees itself whatever `ends` says, and no later one.
    """
    index = jnp.arange(length)
    mask = (index[:, None] >= index)[None]
    if ends is not None:
        mask &= (index[:, None] < ends[:, None, :]) | (index[:, None] == index)
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask
