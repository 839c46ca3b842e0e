"""A tiny model."""

import pytest

from stair_jax.models.config import ModelConfig


@pytest.fixture(scope="session")
def config():
    return ModelConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
