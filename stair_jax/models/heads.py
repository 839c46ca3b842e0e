"""What follows the decoder: masking of padded logits, and heads that read one token."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OutputHead:
    """The matrix whose products with hidden states are the logits.

    Attributes:
        table: [V, D].
        rows: [K, D], in place of the rows `ids` of the table; None: all are as in the table.
        ids: K token ids.
    """

    table: jax.Array
    rows: jax.Array | None = None
    ids: tuple[int, ...] = field(default=(), metadata={"static": True})


def mask_padding(logits: jax.Array, vocab_size: int, first: int | jax.Array = 0) -> jax.Array:
    """Replaces the logits of vocabulary padding by -inf.

    A masked logit adds nothing to a log-sum-exp, is never sampled, and gives its row of the head a
    gradient of zero.

    Args:
        logits: [..., V].
        vocab_size: the true number of tokens.
        first: token id of the first logit, if `logits` are a part of the vocabulary.

    Returns:
        [..., V].
    """
    if logits.shape[-1] == vocab_size:
        return logits
    index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + first
    return jnp.where(index < vocab_size, logits, -jnp.inf)


def init_score_head(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """A random scalar head {"kernel": [D]} for a process reward model.

    It takes the place of the policy's vocabulary head (arXiv 2502.02384).
    """
    kernel = jax.random.normal(key, (config.hidden_size,)) * config.initializer_range
    return {"kernel": kernel.astype(config.param_dtype)}


def score(hidden: jax.Array, head: dict[str, Any], index: jax.Array) -> jax.Array:
    """Applies the scalar head to one token of each sequence.

    Args:
        hidden: [B, T, D] hidden states.
        head: {"kernel": [D]}.
        index: [B] int32, position of the token.

    Returns:
        [B] float32.
    """
    # A product and sum in float32: as a matrix product it could run in lower precision.
    return jnp.sum(_at(hidden, index) * head["kernel"].astype(jnp.float32), axis=-1)


def classify(hidden: jax.Array, head: dict[str, Any], index: jax.Array) -> jax.Array:
    """Applies the head of a classifier to one token of each sequence.

    Args:
        hidden: [B, T, D] hidden states.
        head: {"kernel": [D, labels]}.
        index: [B] int32, position of the token.

    Returns:
        Logits [B, labels] float32.
    """
    kernel = head["kernel"].astype(jnp.float32)
    return jnp.matmul(_at(hidden, index), kernel, precision=jax.lax.Precision.HIGHEST)


def _at(hidden: jax.Array, index: jax.Array) -> jax.Array:
    """The hidden states [B, D] float32 of one token of each sequence."""
    return jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0].astype(jnp.float32)
