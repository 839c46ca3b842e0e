"""Chunked token log-probabilities (cross-entropy) that never materialise the logits `[B, T, V]`.

The logits of a batch would be by far the largest array of a step. Here the positions are processed
in chunks, and each chunk's logits are dropped after use. SFT, DPO, the reference pass and judging
share this one implementation. `weighted_logp` computes its gradients in the forward pass, as fused
cross-entropy kernels do; `token_logps`, whose cotangents are known only later, recomputes the
logits of each chunk in the backward pass.

Both have custom gradients. `jax.grad` through a loop would hold a new `[V, D]` gradient of the head
for each chunk next to the running sum (2 GB per device for Qwen2-7B); here it is summed in place.
It could not differentiate a loop whose number of chunks is known only at run time either. Where the
head is not differentiated, nothing of its gradient is computed.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import custom_vjp_primal_tree_values
from jax.sharding import PartitionSpec

from stair_jax.models.heads import OutputHead
from stair_jax.parallel.rules import BATCH_AXES
from stair_jax.training.logits import (
    log_probability,
    log_probability_and_greedy,
    narrowed,
    products,
    whole_logits,
)


def token_logps(
    hidden: jax.Array,
    head: jax.Array | OutputHead,
    targets: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Log p(target) at each position, with p = softmax(hidden @ head.T).

    Each device processes its positions in `num_chunks` chunks, and the backward pass recomputes the
    logits of each chunk: at most `[B * T / num_chunks, V]` logits exist at a time. With one chunk
    the logits are kept for the backward pass, which is fastest if the vocabulary is small.

    Args:
      hidden: `[B, T, D]`.
      head: `[V, D]`, the output embedding, or with rows of their own for some tokens.
      targets: `[B, T]` int, token ids.
      num_chunks: 1 or more; need not divide the number of positions.
      vocab_size: rows of the head from this one on are padding, with probability 0; None: V.
      weights: `[B, T]`; positions of weight 0 may be skipped, and their result is then 0. With
        several chunks they are sorted to the end, and chunks with only such positions cost nothing.
        None: all positions count.

    Returns:
      `[B, T]` float32.
    """
    head = _whole(head)
    vocab_size = head.table.shape[0] if vocab_size is None else vocab_size
    if num_chunks == 1:
        return log_probability(whole_logits(hidden, head), targets, vocab_size)
    local = partial(_in_chunks, num_chunks, vocab_size)
    return _on_devices(local, hidden, head, targets, weights)


def greedy_logps(
    hidden: jax.Array,
    head: jax.Array | OutputHead,
    targets: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `token_logps`, without gradients, and whether greedy decoding would take each target.

    Returns:
      (log-probabilities `[B, T]` float32, `[B, T]` bool: whether the target has the largest logit,
      the first of them if several are as large). At positions that are skipped 0 and False.
    """
    head = _whole(head)
    vocab_size = head.table.shape[0] if vocab_size is None else vocab_size
    if num_chunks == 1:
        found = log_probability_and_greedy(whole_logits(hidden, head), targets, vocab_size)
    else:

        def local(axis: str | None, *arrays: Any) -> jax.Array:
            return _read_in_chunks(
                log_probability_and_greedy, num_chunks, vocab_size, axis, *arrays
            )

        found = _on_devices(local, hidden, head, targets, weights)
    return found[..., 0], found[..., 1] > 0


def weighted_logp(
    hidden: jax.Array,
    head: jax.Array | OutputHead,
    targets: jax.Array,
    weights: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
) -> jax.Array:
    """Sum of w log p(target) over all positions, for losses that are linear in the log-probs.

    As `token_logps`, but no logits are recomputed: the gradients of a weighted sum are known up to
    one scalar factor as soon as the logits are there, so the forward pass makes them.

    Args:
      hidden: `[B, T, D]`.
      head: `[V, D]`, the output embedding, or with rows of their own for some tokens.
      targets: `[B, T]` int, token ids.
      weights: `[B, T]`; not differentiated.
      num_chunks: 1 or more.
      vocab_size: see `token_logps`.

    Returns:
      float32 scalar.
    """
    head = _whole(head)
    vocab_size = head.table.shape[0] if vocab_size is None else vocab_size
    local = partial(_weighted, num_chunks, vocab_size)
    return jnp.sum(_on_devices(local, hidden, head, targets, weights))


def _whole(head: jax.Array | OutputHead) -> OutputHead:
    return head if isinstance(head, OutputHead) else OutputHead(head)


def _on_devices(
    local: Callable[..., jax.Array],
    hidden: jax.Array,
    head: OutputHead,
    targets: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """Runs `local(axis, hidden, head, targets, weights)` under `shard_map` on the mesh in use.

    Each device gets its rows of the batch and its part of the vocabulary; the results are
    concatenated along their first axis. `axis` is the mesh axis that splits the vocabulary, or None
    if there is no mesh of several devices.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return local(None, hidden, head, targets, weights)

    def on_device(hidden: jax.Array, head: OutputHead, *rest: Any) -> jax.Array:
        # Gathered once per call, and its gradients reduced once, rather than for each chunk.
        head = replace(head, table=_put_together(head.table))
        return local("tensor", hidden, head, *rest)

    rows = PartitionSpec(BATCH_AXES)
    by_part: dict[str, Any] = {"table": PartitionSpec("tensor", "fsdp")}
    if head.rows is not None:
        by_part["rows"] = PartitionSpec()
    # The table is cast before it is gathered over `fsdp`, which halves the traffic in bfloat16.
    return jax.shard_map(
        on_device,
        in_specs=(rows, replace(head, **by_part), rows, rows),
        out_specs=rows,
        check_vma=False,
    )(hidden, replace(head, table=head.table.astype(hidden.dtype)), targets, weights)


@jax.custom_vjp
def _put_together(head: jax.Array) -> jax.Array:
    """All-gather of a head over `fsdp`: `[V, D / fsdp]` on each device -> `[V, D]`."""
    return jax.lax.all_gather(head, "fsdp", axis=1, tiled=True)


def _put_together_bwd(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    summed = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=1, tiled=True)
    # Without the barrier, XLA for TPUs fails when it tries to move the reduction out of the loop
    # over micro-batches.
    return (jax.lax.optimization_barrier(summed),)


_put_together.defvjp(lambda head: (_put_together(head), None), _put_together_bwd)


class _Pieces(NamedTuple):
    """The positions of a device's rows, divided into chunks.

    Attributes:
      order: `[count]` int, positions; those of weight 0 come last.
      chunks: `[num_chunks, size]` int, the same in chunks, padded with position 0.
      used: int scalar, number of chunks with a position of non-zero weight.
    """

    order: jax.Array
    chunks: jax.Array
    used: jax.Array

    def put_back(self, values: jax.Array) -> jax.Array:
        """Inverse of the division: `values[num_chunks, size, ...]` -> `[count, ...]`, in order."""
        flat = values.reshape(-1, *values.shape[2:])[: len(self.order)]
        return jnp.zeros_like(flat).at[self.order].set(flat, unique_indices=True)


def _pieces(count: int, num_chunks: int, weights: jax.Array | None) -> _Pieces:
    order, wanted = jnp.arange(count), jnp.int32(count)
    if weights is not None:
        # A stable sort of booleans: moves zeros to the end and keeps the order otherwise.
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
    head: OutputHead,
    targets: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """`token_logps` for the rows of one device: `[B, T]` float32."""
    return _read_in_chunks(
        log_probability, num_chunks, vocab_size, axis, hidden, head, targets, weights
    )


def _read_in_chunks(
    read: Callable[..., jax.Array],
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    hidden: jax.Array,
    head: OutputHead,
    targets: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """What `read(logits, targets, vocab_size, axis)` makes of the logits of one device's rows.

    Returns:
      `[B, T, ...]` float32, where `read` makes `[N, ...]` of the logits `[N, V]` of a chunk.
    """
    pieces = _pieces(targets.size, num_chunks, weights)
    rows, ids = _flat(hidden), jnp.ravel(targets)
    cast, first = narrowed(head, hidden), _first(head, axis)  # once, not in each chunk

    def of_chunk(number: jax.Array) -> jax.Array:
        own = pieces.chunks[number]
        return read(products(rows[own], cast, head, first), ids[own], vocab_size, axis)

    def add(number: jax.Array, values: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(values, of_chunk(number), number, 0)

    shape = jax.eval_shape(of_chunk, jnp.int32(0)).shape[1:]
    values = jnp.zeros((*pieces.chunks.shape, *shape), jnp.float32)
    # A dynamic trip count: chunks without a weighted position are not run and stay 0.
    values = jax.lax.fori_loop(0, pieces.used, add, values)
    return pieces.put_back(values).reshape(*targets.shape, *shape)


def _in_chunks_fwd(
    num_chunks: int, vocab_size: int, axis: str | None, *given: Any
) -> tuple[jax.Array, Any]:
    arrays = custom_vjp_primal_tree_values(given)
    logps = _in_chunks(num_chunks, vocab_size, axis, *arrays)
    return logps, (arrays, _differentiated(given[1]))


def _in_chunks_bwd(
    num_chunks: int, vocab_size: int, axis: str | None, kept: Any, factors: jax.Array
) -> tuple[jax.Array, OutputHead, None, None]:
    arrays, differentiated = kept
    if axis is not None:
        # The output is replicated over `axis`, for which the transpose of `shard_map` hands each
        # device an equal share of the cotangent: the sum is the whole.
        factors = jax.lax.psum(factors, axis)
    _, by_hidden, by_head = _swept(num_chunks, vocab_size, axis, arrays, factors, differentiated)
    return by_hidden, by_head, None, None


# With symbolic zeros, the forward rule is told what of the head is differentiated.
_in_chunks.defvjp(_in_chunks_fwd, _in_chunks_bwd, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _weighted(
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    hidden: jax.Array,
    head: OutputHead,
    targets: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """`weighted_logp` for the rows of one device: `[1]`, so that devices can be concatenated."""
    logps = _in_chunks(num_chunks, vocab_size, axis, hidden, head, targets, weights)
    return jnp.sum(logps * weights)[None]


def _weighted_fwd(
    num_chunks: int, vocab_size: int, axis: str | None, *given: Any
) -> tuple[jax.Array, Any]:
    arrays = custom_vjp_primal_tree_values(given)
    # The factor of each position is its weight. What is kept for the backward pass is the
    # gradients, not the activations.
    total, *gradients = _swept(
        num_chunks, vocab_size, axis, arrays, arrays[-1], _differentiated(given[1])
    )
    return total[None], gradients


def _weighted_bwd(
    num_chunks: int, vocab_size: int, axis: str | None, gradients: Any, factor: jax.Array
) -> tuple[jax.Array, OutputHead, None, None]:
    if axis is not None:
        factor = jax.lax.psum(factor, axis)  # as in `_in_chunks_bwd`
    by_hidden, by_head = jax.tree.map(lambda each: (each * factor).astype(each.dtype), gradients)
    return by_hidden, by_head, None, None


_weighted.defvjp(_weighted_fwd, _weighted_bwd, symbolic_zeros=True)


def _differentiated(head: OutputHead) -> OutputHead:
    """Of a head as a forward rule gets it: empty arrays for what is differentiated, else None."""
    return jax.tree.map(lambda part: part.value[:0] if part.perturbed else None, head)


def _swept(
    num_chunks: int,
    vocab_size: int,
    axis: str | None,
    arrays: tuple[jax.Array, OutputHead, jax.Array, jax.Array | None],
    factors: jax.Array,
    differentiated: OutputHead,
) -> tuple[jax.Array, jax.Array, OutputHead]:
    """Sum of factor * log p(target) over the rows of one device, with its gradients.

    Args:
      num_chunks: number of chunks.
      vocab_size: rows of the whole head that stand for tokens.
      axis: mesh axis that splits the vocabulary, or None.
      arrays: hidden `[B, T, D]`, head `[V, D]`, targets `[B, T]`, weights `[B, T]` or None.
      factors: `[B, T]`; those at positions of weight 0 may be ignored.
      differentiated: see `_differentiated`.

    Returns:
      (sum, gradient for hidden, gradients for the head, None where there are none). If the
      vocabulary is split, the gradients are this device's contributions. The gradients for the
      head are accumulated in float32.
    """
    hidden, head, targets, weights = arrays
    count = targets.size
    pieces = _pieces(count, num_chunks, weights)
    size = pieces.chunks.shape[1]
    rows, ids, flat_factors = _flat(hidden), jnp.ravel(targets), jnp.ravel(factors)
    cast, first = narrowed(head, hidden), _first(head, axis)
    wide = jax.tree.map(
        lambda mark, part: None if mark is None else part.astype(jnp.float32),
        differentiated,
        head,
        is_leaf=_is_none,
    )
    # Every device of `axis` computes the same sum. Each starts the backward pass with an equal
    # share of 1, as the transpose of the psum in `log_probability` is a psum that adds the shares
    # up again.
    one = jnp.float32(1) if axis is None else 1 / jax.lax.axis_size(axis)

    def add(number: jax.Array, carry: Any) -> Any:
        total, by_hidden, by_head = carry
        own = pieces.chunks[number]
        # The last chunk may be padded with position 0, which must not count twice.
        is_position = number * size + jnp.arange(size) < count
        factor = jnp.where(is_position, flat_factors[own], 0)

        def value(hidden: jax.Array, wide: OutputHead) -> jax.Array:
            whole = jax.tree.map(
                lambda part, still: still if part is None else part, wide, head, is_leaf=_is_none
            )
            logits = products(hidden, cast, whole, first)
            return jnp.sum(factor * log_probability(logits, ids[own], vocab_size, axis))

        found, pull = jax.vjp(value, rows[own], wide)
        own_by_hidden, own_by_head = pull(one)
        by_hidden = jax.lax.dynamic_update_index_in_dim(by_hidden, own_by_hidden, number, 0)
        return total + found, by_hidden, jax.tree.map(jnp.add, by_head, own_by_head)

    nothing = (
        jnp.float32(0),
        jnp.zeros((*pieces.chunks.shape, hidden.shape[-1]), hidden.dtype),
        jax.tree.map(jnp.zeros_like, wide),
    )
    total, by_hidden, by_head = jax.lax.fori_loop(0, pieces.used, add, nothing)
    by_hidden = pieces.put_back(by_hidden).reshape(hidden.shape)
    by_head = jax.tree.map(lambda part, like: part.astype(like.dtype), by_head, differentiated)
    return total, by_hidden, by_head


def _is_none(value: Any) -> bool:
    return value is None


def _first(head: OutputHead, axis: str | None) -> int | jax.Array:
    """Token id of the first row of this device's part of the table."""
    return 0 if axis is None else jax.lax.axis_index(axis) * head.table.shape[0]


def _flat(hidden: jax.Array) -> jax.Array:
    """`[B, T, D]` -> `[B * T, D]`."""
    return jnp.asarray(hidden).reshape(-1, hidden.shape[-1])
