"""A tiny model, and TPU topologies if libtpu is installed."""

import pytest

from stair_jax.models.config import ModelConfig
from stair_jax.planning.topology import get_topology


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


@pytest.fixture(scope="session")
def tpu():
    """`tpu("v5e:2x2")`: a topology; skips the test if libtpu is missing."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    return get_topology
