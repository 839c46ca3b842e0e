"""What follows the decoder: logits that stand for tokens, and a reward model's scalar head."""

from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig


def mask_padding(logits: jax.Array, vocab_size: int, first: int | jax.Array = 0) -> jax.Array:
    """Logits `[..., V]` with -inf beyond the true vocabulary; unchanged where nothing is beyond.

    `first` is the token of the first logit, where these are a part of the vocabulary.

    A masked logit adds nothing to a log-sum-exp, is never sampled, and gives its row of the head a
    gradient of zero.
    """
    if logits.shape[-1] == vocab_size:
        return logits
    index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) + first
    return jnp.where(index < vocab_size, logits, -jnp.inf)


def init_score_head(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """A random head `{"kernel": [D]}`, in place of a policy's vocabulary head (STAIR section 6)."""
    kernel = jax.random.normal(key, (config.hidden_size,)) * config.initializer_range
    return {"kernel": kernel.astype(config.param_dtype)}


def score(hidden: jax.Array, head: dict[str, Any], index: jax.Array) -> jax.Array:
    """Scores `[B]` in float32 of the tokens at `index[B]` of `hidden[B, T, D]`."""
    last = jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]
    return jnp.sum(last.astype(jnp.float32) * head["kernel"].astype(jnp.float32), axis=-1)
