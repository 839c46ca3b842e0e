"""Attention over two parts of a sequence, merged."""

import jax
import jax.numpy as jnp


def merge(
    first: jax.Array, first_sum: jax.Array, second: jax.Array, second_sum: jax.Array
) -> jax.Array:
    """Attention over two disjoint sets of keys, from that over each.

    The softmax over both parts is the mean of their softmaxes, weighted by their shares of the
    joint denominator: exp(a) / (exp(a) + exp(b)) = sigmoid(a - b) for log-sum-exps a and b.

    Args:
        first: [B, T, heads, head_dim].
        first_sum: [B, heads, T] float32, log-sum-exps of the scaled logits; -inf where there are no
            keys.
        second: as `first`; the result has its dtype.
        second_sum: as `first_sum`, finite.
    """
    share = jax.nn.sigmoid(first_sum - second_sum).transpose(0, 2, 1)[..., None]
    out = share * first.astype(jnp.float32) + (1 - share) * second.astype(jnp.float32)
    return out.astype(second.dtype)
