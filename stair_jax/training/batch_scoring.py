"""Log-probabilities and scores of padded batches (data/padding.py), to put into the losses."""

from functools import partial
from typing import Any

import jax

from stair_jax.models import heads, transformer
from stair_jax.models.config import ModelConfig
from stair_jax.training.objectives import micro_logps


@partial(jax.jit, static_argnums=0)
def batch_logps(config: ModelConfig, params: Any, batch: dict[str, Any]) -> jax.Array:
    """Log-probabilities of the tokens that count in a batch, under a language model.

    Args:
      config: of the model.
      params: of the model, as `init_params` and `load` give them.
      batch: as of `sft_batch`, or one side of `dpo_batch`; N rows of T tokens.

    Returns:
      `[N, T]` float32, 0 where the weight is 0: the sum of a row is the log-probability of its
      answer, or step, given what stands before it.
    """
    return micro_logps(config, 1, params, batch) * batch["weights"]


@partial(jax.jit, static_argnums=0)
def batch_scores(config: ModelConfig, params: Any, batch: dict[str, Any]) -> jax.Array:
    """Scores of the sequences of a batch by a process reward model, read at their last tokens.

    Args:
      config: of the model.
      params: `{"model": params, "score": {"kernel": [D]}}`.
      batch: one side of `prm_batch`; N rows of T tokens.

    Returns:
      `[N]` float32.
    """
    hidden = transformer.apply(
        config, params["model"], batch["tokens"], batch["positions"], batch["segment_ids"]
    )
    return heads.score(hidden, params["score"], batch["last"])
