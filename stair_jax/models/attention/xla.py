"""Attention over whole sequences in plain XLA: the reference, on any platform and in any dtype."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from stair_jax.models import remat
from stair_jax.models.attention.mask import visible


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array | None,
) -> jax.Array:
    """Attention by explicit [T, T] logits; keys and values are not repeated for grouped queries."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    mask = visible(length, segment_ids, ends)
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    # float32 logits whatever the dtype of the model, as the softmax needs the precision.
    logits = jnp.einsum("btkgh,bskh->bkgts", grouped, key, preferred_element_type=jnp.float32)
    weights = _softmax(logits * head_dim**-0.5, mask[:, None, None], value.dtype)
    out = jnp.einsum("bkgts,bskh->btkgh", weights, value).reshape(query.shape)
    return checkpoint_name(out, remat.ATTENTION)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax(logits: jax.Array, mask: jax.Array, dtype: Any) -> jax.Array:
    """Masked softmax over the last axis, in float32, rounded to `dtype`.

    The residual of the backward pass is the rounded weights alone, which the product with the
    values saves anyway. Neither float32 weights nor the mask are saved: a masked weight is 0, and
    so is its gradient.
    """
    # Finite instead of -inf, so that no NaN can arise.
    masked = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(masked, axis=-1).astype(dtype)


def _softmax_forward(logits: jax.Array, mask: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    weights = _softmax(logits, mask, dtype)
    return weights, weights


def _softmax_backward(
    dtype: Any, weights: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, None]:
    wide = weights.astype(jnp.float32)
    weighted = wide * gradient.astype(jnp.float32)
    return weighted - wide * jnp.sum(weighted, axis=-1, keepdims=True), None


_softmax.defvjp(_softmax_forward, _softmax_backward)
