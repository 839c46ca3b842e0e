"""Log-probabilities of given tokens, without the logits of a whole batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stair_jax.models.heads import mask_padding


def token_logps(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    num_chunks: int = 1,
    vocab_size: int | None = None,
) -> jax.Array:
    """Log p(target) at each position, p = softmax(hidden @ head.T), in float32.

    The positions are taken in `num_chunks` pieces along T, and the logits of a piece are computed
    again in the backward pass: `[B, T, V]` never exists, but `[B, T / num_chunks, V]`. One chunk
    keeps its logits, which is fastest where the vocabulary is small.

    Args:
      hidden: `[B, T, D]`.
      head: `[V, D]`.
      targets: `[B, T]` token ids.
      num_chunks: 1 or more; T need not be a multiple.
      vocab_size: rows of the head from this one on are padding and stand for no token (None: V).

    Returns:
      `[B, T]` float32.
    """
    length = targets.shape[1]
    vocab_size = head.shape[0] if vocab_size is None else vocab_size
    if num_chunks == 1:
        return _chunk_logps(hidden, head, targets, vocab_size)
    size = -(-length // num_chunks)
    padding = size * num_chunks - length
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))

    # Chunks along T, not B: the rows stay where the mesh has put them.
    @jax.checkpoint
    def body(carry: None, chunk: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        return carry, _chunk_logps(chunk[0], head, chunk[1], vocab_size)

    chunks = (_chunked(hidden, num_chunks), _chunked(targets, num_chunks))
    _, logps = jax.lax.scan(body, None, chunks)
    return jnp.moveaxis(logps, 0, 1).reshape(targets.shape)[:, :length]


def _chunked(array: jax.Array, num_chunks: int) -> jax.Array:
    """`[B, T, ...]` -> `[num_chunks, B, T / num_chunks, ...]`."""
    batch, length, *rest = array.shape
    return jnp.moveaxis(array.reshape(batch, num_chunks, length // num_chunks, *rest), 1, 0)


def _chunk_logps(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, vocab_size: int
) -> jax.Array:
    logits = jnp.einsum(
        "btd,vd->btv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32
    )
    logits = nn.with_logical_constraint(logits, ("batch", "length", "activation_vocab"))
    logits = mask_padding(logits, vocab_size)
    # A comparison instead of a gather: its gradient is no scatter, and V may be sharded.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]
    chosen = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1)
