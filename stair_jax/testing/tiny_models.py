"""Random models of a few thousand parameters, which compile and run in a moment."""

from typing import Any

import jax

from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params, init_params


def tiny_config(vocab_size: int = 40, **changes: Any) -> ModelConfig:
    """Two layers, two heads of width 8, one head of keys and values.

    Weights are drawn wide (standard deviation 0.3), so that logits differ and samples are not all
    alike in their probability.

    Args:
      vocab_size: V.
      changes: other fields of `ModelConfig`.
    """
    shape = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "initializer_range": 0.3,
    }
    return ModelConfig(**{"vocab_size": vocab_size, **shape, **changes})


def tiny_model(vocab_size: int = 40, seed: int = 0, **changes: Any) -> tuple[ModelConfig, Params]:
    """A config and random parameters.

    Args:
      vocab_size: V.
      seed: of the parameters.
      changes: other fields of `ModelConfig`, see `tiny_config`.
    """
    config = tiny_config(vocab_size, **changes)
    return config, init_params(config, jax.random.key(seed))
