"""A tiny model, and the topologies of a compiler that may be missing."""

import pytest

from stair_jax.planning.topology import get_topology
from stair_jax.testing.tiny_models import tiny_config


@pytest.fixture(scope="session")
def config():
    return tiny_config(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)


@pytest.fixture(scope="session")
def tpu():
    """`tpu("v5e:2x2")`: a topology; skips the test where TPUs cannot be compiled for."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    return get_topology
