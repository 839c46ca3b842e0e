"""The scalar head of a process reward model (STAIR section 6)."""

from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.models.config import ModelConfig


def init_score_head(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """A random head `{"kernel": [D]}`, in place of the vocabulary head of a policy."""
    kernel = jax.random.normal(key, (config.hidden_size,)) * config.initializer_range
    return {"kernel": kernel.astype(config.param_dtype)}


def score(hidden: jax.Array, head: dict[str, Any], index: jax.Array) -> jax.Array:
    """Scores `[B]` in float32 of the tokens at `index[B]` of `hidden[B, T, D]`."""
    last = jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]
    return jnp.sum(last.astype(jnp.float32) * head["kernel"].astype(jnp.float32), axis=-1)
