"""Small models that can be sharded over meshes of eight devices."""

import dataclasses

import pytest

from stair_jax.models.config import ModelConfig

_LLAMA = ModelConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=4,
    initializer_range=0.3,
)


@pytest.fixture(scope="session")
def families():
    """Configs by model type, with different numbers of KV heads."""
    qwen2 = {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True}
    qwen3 = {"model_type": "qwen3", "num_key_value_heads": 4}
    return {
        "llama": _LLAMA,
        "qwen2": dataclasses.replace(_LLAMA, **qwen2),
        "qwen3": dataclasses.replace(_LLAMA, **qwen3),
    }
