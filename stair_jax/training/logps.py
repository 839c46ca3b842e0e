"""Log-probabilities of given tokens, without the logits of a whole batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.models.heads import mask_padding
from stair_jax.parallel.rules import BATCH_AXES


def token_logps(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Log p(target) at each position, p = softmax(hidden @ head.T), in float32.

    The positions of each device are taken in `num_chunks` pieces, and the logits of a piece are
    computed again in the backward pass: `[B, T, V]` never exists, but `[B * T / num_chunks, V]`.
    One chunk keeps its logits, which is fastest where the vocabulary is small.

    Args:
      hidden: `[B, T, D]`.
      head: `[V, D]`.
      targets: `[B, T]` token ids.
      num_chunks: 1 or more; the number of positions need not be a multiple.
      vocab_size: rows of the head from this one on are padding and stand for no token (None: V).
      weights: `[B, T]`; with several chunks, positions of weight 0 may be left out, and are 0 then:
        they come last, and pieces with no other are skipped. None: all count.

    Returns:
      `[B, T]` float32.
    """
    vocab_size = head.shape[0] if vocab_size is None else vocab_size
    if num_chunks == 1:
        logits = _product(hidden, _narrow(head, hidden), head)
        logits = nn.with_logical_constraint(logits, ("batch", "length", "activation_vocab"))
        return _chosen(logits, targets, vocab_size)
    local = partial(_in_chunks, num_chunks, vocab_size)
    return _on_devices(local, hidden, head, targets, weights)


def weighted_logp(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
) -> jax.Array:
    """The sum of w log p(target) over all positions, a float32 scalar.

    As `token_logps`, but nothing is computed twice: the gradients of a sum are known up to one
    factor when the logits of a piece are there, and are made together with it.

    Args:
      hidden: `[B, T, D]`.
      head: `[V, D]`.
      targets: `[B, T]` token ids.
      weights: `[B, T]`; not differentiated.
      num_chunks: 1 or more.
      vocab_size: see `token_logps`.
    """
    vocab_size = head.shape[0] if vocab_size is None else vocab_size
    local = partial(_weighted, num_chunks, vocab_size)
    return jnp.sum(_on_devices(local, hidden, head, targets, weights))


def _on_devices(
    local: Callable[..., jax.Array],
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """`local(axis, hidden, head, targets, weights)` of each device's rows and part of V.

    Its results are put together along their first axis. `axis` is that of a mesh which splits the
    vocabulary, or None.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return local(None, hidden, head, targets, weights)

    def on_device(hidden: jax.Array, head: jax.Array, *rest: Any) -> jax.Array:
        # Put together once, and its gradients are added up once, not for each chunk.
        return local("tensor", hidden, _put_together(head), *rest)

    rows = PartitionSpec(BATCH_AXES)
    return jax.shard_map(
        on_device,
        in_specs=(rows, PartitionSpec("tensor", "fsdp"), rows, rows),
        out_specs=rows,
        check_vma=False,
    )(hidden, head.astype(hidden.dtype), targets, weights)


@jax.custom_vjp
def _put_together(head: jax.Array) -> jax.Array:
    """`[V, D]` on each device of `fsdp` out of their parts `[V, D / fsdp]`."""
    return jax.lax.all_gather(head, "fsdp", axis=1, tiled=True)


def _put_together_bwd(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    summed = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=1, tiled=True)
    # Else XLA for TPUs fails where it wants to take the sum out of a loop over micro-batches.
    return (jax.lax.optimization_barrier(summed),)


_put_together.defvjp(lambda head: (_put_together(head), None), _put_together_bwd)


class _Pieces(NamedTuple):
    """The positions of a device's rows, in pieces.

    Attributes:
      order: `[count]`, positions; those that are not wanted come last.
      chunks: `[num_chunks, size]`, the same in pieces, filled up with any.
      used: pieces with a position that is wanted.
    """

    order: jax.Array
    chunks: jax.Array
    used: jax.Array

    def put_back(self, values: jax.Array) -> jax.Array:
        """`[count, ...]` in the order of positions, of `values[num_chunks, size, ...]`."""
        flat = values.reshape(-1, *values.shape[2:])[: len(self.order)]
        return jnp.zeros_like(flat).at[self.order].set(flat, unique_indices=True)


def _pieces(count: int, num_chunks: int, weights: jax.Array | None) -> _Pieces:
    order, wanted = jnp.arange(count), jnp.int32(count)
    if weights is not None:
        order = jnp.argsort(weights.ravel() == 0, stable=True)
        wanted = jnp.count_nonzero(weights)
    size = -(-count // num_chunks)
    chunks = jnp.pad(order, (0, size * num_chunks - count)).reshape(num_chunks, size)
    return _Pieces(order, chunks, -(-wanted // size))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _in_chunks(
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """`token_logps` of the rows of one device."""
    pieces = _pieces(targets.size, num_chunks, weights)
    rows, ids = _flat(hidden), jnp.ravel(targets)
    narrow = _narrow(head, hidden)  # once, and not in each chunk

    def add(number: jax.Array, logps: jax.Array) -> jax.Array:
        own = pieces.chunks[number]
        logits = _product(rows[own], narrow, head)
        found = _chosen(logits, ids[own], vocab_size, axis)
        return jax.lax.dynamic_update_index_in_dim(logps, found, number, 0)

    logps = jnp.zeros(pieces.chunks.shape, jnp.float32)
    logps = jax.lax.fori_loop(0, pieces.used, add, logps)
    return pieces.put_back(logps).reshape(targets.shape)


def _in_chunks_fwd(
    num_chunks: int, vocab_size: int, axis: str | None, *arrays: Any
) -> tuple[jax.Array, Any]:
    return _in_chunks(num_chunks, vocab_size, axis, *arrays), arrays


def _in_chunks_bwd(
    num_chunks: int, vocab_size: int, axis: str | None, arrays: Any, factors: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    if axis is not None:
        factors = jax.lax.psum(factors, axis)
    _, by_hidden, by_head = _swept(num_chunks, vocab_size, axis, arrays, factors)
    return by_hidden, by_head, None, None


_in_chunks.defvjp(_in_chunks_fwd, _in_chunks_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _weighted(
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """`weighted_logp` of the rows of one device, `[1]`."""
    logps = _in_chunks(num_chunks, vocab_size, axis, hidden, head, targets, weights)
    return jnp.sum(logps * weights)[None]


def _weighted_fwd(
    num_chunks: int, vocab_size: int, axis: str | None, *arrays: Any
) -> tuple[jax.Array, Any]:
    total, *gradients = _swept(num_chunks, vocab_size, axis, arrays, arrays[-1])
    return total[None], gradients


def _weighted_bwd(
    num_chunks: int, vocab_size: int, axis: str | None, gradients: Any, factor: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    if axis is not None:
        factor = jax.lax.psum(factor, axis)
    by_hidden, by_head = ((each * factor).astype(each.dtype) for each in gradients)
    return by_hidden, by_head, None, None


_weighted.defvjp(_weighted_fwd, _weighted_bwd)


def _swept(
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    arrays: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None],
    factors: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The sum of factor log p(target) of one device's rows, and its gradients.

    They are those by `hidden` and `head`; where the vocabulary is split, the part that comes from
    this device's part of it. What is summed over the pieces is float32. `arrays` are hidden, head,
    targets and weights.
    """
    hidden, head, targets, weights = arrays
    count = targets.size
    pieces = _pieces(count, num_chunks, weights)
    size = pieces.chunks.shape[1]
    rows, ids, flat_factors = _flat(hidden), jnp.ravel(targets), jnp.ravel(factors)
    narrow, wide = _narrow(head, hidden), head.astype(jnp.float32)
    # All devices of `axis` have the same sum, and each starts with its share of the gradient.
    one = jnp.float32(1) if axis is None else 1 / jax.lax.axis_size(axis)

    def add(number: jax.Array, carry: Any) -> Any:
        total, by_hidden, by_head = carry
        own = pieces.chunks[number]
        is_position = number * size + jnp.arange(size) < count
        factor = jnp.where(is_position, flat_factors[own], 0)

        def value(hidden: jax.Array, head: jax.Array) -> jax.Array:
            logits = _product(hidden, narrow, head)
            return jnp.sum(factor * _chosen(logits, ids[own], vocab_size, axis))

        found, pull = jax.vjp(value, rows[own], wide)
        own_by_hidden, own_by_head = pull(one)
        by_hidden = jax.lax.dynamic_update_index_in_dim(by_hidden, own_by_hidden, number, 0)
        return total + found, by_hidden, by_head + own_by_head

    nothing = (
        jnp.float32(0),
        jnp.zeros((*pieces.chunks.shape, hidden.shape[-1]), hidden.dtype),
        jnp.zeros(head.shape, jnp.float32),
    )
    total, by_hidden, by_head = jax.lax.fori_loop(0, pieces.used, add, nothing)
    by_hidden = pieces.put_back(by_hidden).reshape(hidden.shape)
    return total, by_hidden, by_head.astype(head.dtype)


def _flat(hidden: jax.Array) -> jax.Array:
    """`[B * T, D]`."""
    return jnp.asarray(hidden).reshape(-1, hidden.shape[-1])


def _narrow(head: jax.Array, hidden: jax.Array) -> jax.Array:
    """The head to multiply with; its gradients go to the head itself."""
    return jax.lax.stop_gradient(head).astype(hidden.dtype)


@jax.custom_vjp
def _product(hidden: jax.Array, narrow: jax.Array, head: jax.Array) -> jax.Array:
    """Logits `[..., V]` in float32 of `hidden[..., D]` and `head[V, D]`, in the dtype of `hidden`.

    The gradients of the logits are taken in that dtype too: as they come, in float32, GPUs would
    multiply with them in TF32, at half the rate.
    """
    return jnp.einsum("...d,vd->...v", hidden, narrow, preferred_element_type=jnp.float32)


def _product_fwd(
    hidden: jax.Array, narrow: jax.Array, head: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    # Of the head nothing but its dtype is wanted.
    return _product(hidden, narrow, head), (hidden, narrow, head[:0])


def _product_bwd(
    kept: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    hidden, narrow, head = kept
    gradient = gradient.astype(hidden.dtype)
    return (
        jnp.einsum("...v,vd->...d", gradient, narrow),
        None,
        jnp.einsum("...v,...d->vd", gradient, hidden, preferred_element_type=head.dtype),
    )


_product.defvjp(_product_fwd, _product_bwd)


def _chosen(
    logits: jax.Array, targets: jax.Array, vocab_size: int, axis: str | None = None
) -> jax.Array:
    """Log-probabilities of the targets by their logits `[..., V]`, or `[..., V / N]` of N parts."""
    rows = logits.shape[-1]
    first = jax.lax.axis_index(axis) * rows if axis else 0
    logits = mask_padding(logits, vocab_size, first)
    # A comparison instead of a gather: its gradient is no scatter, and V may be sharded.
    index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + first
    chosen = jnp.sum(jnp.where(index == targets[..., None], logits, 0.0), axis=-1)
    if axis is None:
        return chosen - jax.nn.logsumexp(logits, axis=-1)
    largest = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(logits, axis=-1)), axis)
    total = jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1)
    chosen, total = jax.lax.psum((chosen, total), axis)
    return chosen - largest - jnp.log(total)
