"""A tiny model's config."""

import pytest

from stair_jax.testing.tiny_models import tiny_config


@pytest.fixture(scope="session")
def config():
    return tiny_config(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
