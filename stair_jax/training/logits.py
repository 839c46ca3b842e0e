"""Logits of hidden states, and the log-probabilities that they give to tokens."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stair_jax.models.heads import OutputHead, mask_padding


def whole_logits(hidden: jax.Array, head: OutputHead) -> jax.Array:
    """`[B, T, V]`, split over the mesh in use."""
    logits = products(hidden, narrowed(head, hidden), head)
    return nn.with_logical_constraint(logits, ("batch", "length", "activation_vocab"))


def narrowed(head: OutputHead, hidden: jax.Array) -> OutputHead:
    """The head in the compute dtype, for `products`, which sends gradients to the head."""
    return jax.tree.map(lambda part: jax.lax.stop_gradient(part).astype(hidden.dtype), head)


def products(
    hidden: jax.Array, narrow: OutputHead, head: OutputHead, first: int | jax.Array = 0
) -> jax.Array:
    """Logits `[..., V]` in float32 of `hidden[..., D]`.

    Args:
      hidden: `[..., D]`.
      narrow: of the head, see `narrowed`.
      head: gets the gradients, as far as they are asked for.
      first: token id of the first row of its table, if that is a part of the vocabulary.
    """
    logits = _product(hidden, narrow.table, head.table)
    if head.rows is None:
        return logits
    assert narrow.rows is not None
    own = _product(hidden, narrow.rows, head.rows)
    # Comparisons, not a scatter: V may be sharded, and they are fused with what reads the logits.
    index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + first
    for place, token in enumerate(head.ids):
        logits = jnp.where(index == token, own[..., place, None], logits)
    return logits


@jax.custom_vjp
def _product(hidden: jax.Array, narrow: jax.Array, head: jax.Array) -> jax.Array:
    """Products `[..., V]` in float32, computed in the dtype of `hidden[..., D]`.

    `narrow[V, D]` is `head[V, D]` in that dtype. It has no gradient of its own: `head` gets it, in
    its own dtype (float32 where gradients are accumulated), unless it is not differentiated. The
    gradients of the logits are cast to the dtype of `hidden`: they arrive in float32, and GPUs
    would multiply them in TF32, at half the rate of bfloat16.
    """
    return jnp.einsum("...d,vd->...v", hidden, narrow, preferred_element_type=jnp.float32)


def _product_fwd(
    hidden: Any, narrow: Any, head: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None]]:
    # Only the dtype of the head is needed later: an empty slice carries it without the array.
    like = head.value[:0] if head.perturbed else None
    product = _product(hidden.value, narrow.value, head.value)
    return product, (hidden.value, narrow.value, like)


def _product_bwd(
    kept: tuple[jax.Array, jax.Array, jax.Array | None], gradient: jax.Array
) -> tuple[jax.Array, None, jax.Array | None]:
    hidden, narrow, like = kept
    gradient = gradient.astype(hidden.dtype)
    by_hidden = jnp.einsum("...v,vd->...d", gradient, narrow)
    if like is None:
        return by_hidden, None, None
    by_head = jnp.einsum("...v,...d->vd", gradient, hidden, preferred_element_type=like.dtype)
    return by_hidden, None, by_head


# With symbolic zeros, the forward rule is told whether the head is differentiated.
_product.defvjp(_product_fwd, _product_bwd, symbolic_zeros=True)


def log_probability(
    logits: jax.Array, targets: jax.Array, vocab_size: int, axis: str | None = None
) -> jax.Array:
    """Log-probabilities of targets `[...]` from logits `[..., V]`.

    With `axis` the vocabulary is split over its N devices: logits are `[..., V / N]`, and the
    result is the same on each device.
    """
    rows = logits.shape[-1]
    first = jax.lax.axis_index(axis) * rows if axis else 0
    logits = mask_padding(logits, vocab_size, first)
    # A comparison instead of a gather: its gradient is not a scatter, and V may be sharded.
    index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + first
    chosen = jnp.sum(jnp.where(index == targets[..., None], logits, 0.0), axis=-1)
    if axis is None:
        return chosen - jax.nn.logsumexp(logits, axis=-1)
    # Log-sum-exp over the devices. The maximum is only a shift, whose gradient is 0.
    largest = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(logits, axis=-1)), axis)
    total = jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1)
    chosen, total = jax.lax.psum((chosen, total), axis)
    return chosen - largest - jnp.log(total)


def log_probability_and_greedy(
    logits: jax.Array, targets: jax.Array, vocab_size: int, axis: str | None = None
) -> jax.Array:
    """`[..., 2]` float32: `log_probability`, and 1 where the target is the largest logit.

    The first of them, if several are as large.
    """
    first = jax.lax.axis_index(axis) * logits.shape[-1] if axis else 0
    masked = mask_padding(logits, vocab_size, first)
    largest, best = jnp.max(masked, axis=-1), jnp.argmax(masked, axis=-1) + first
    if axis is not None:
        everywhere = jax.lax.pmax(largest, axis)
        none = jnp.iinfo(best.dtype).max
        best = jax.lax.pmin(jnp.where(largest == everywhere, best, none), axis)
    chosen = log_probability(logits, targets, vocab_size, axis)
    return jnp.stack([chosen, (best == targets).astype(jnp.float32)], axis=-1)
