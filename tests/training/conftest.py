"""A tiny model, and batches for it."""

import jax
import numpy as np
import pytest

from stair_jax.data.packing import Example
from stair_jax.models.transformer import init_params
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.training.batches import Group
from stair_jax.training.settings import TrainingSettings


@pytest.fixture(scope="session")
def config():
    return tiny_config(tie_word_embeddings=True)


@pytest.fixture
def params(config):
    return init_params(config, jax.random.key(0))


@pytest.fixture
def settings():
    return TrainingSettings(learning_rate=1e-2, batch_size=4, max_length=16, microbatch_rows=2)


@pytest.fixture
def make_groups():
    """`make_groups(count, width)`: groups of `width` random sequences, 4 to 12 tokens long."""

    def make(count, width=1, seed=0):
        rng = np.random.default_rng(seed)

        def example(name):
            length = int(rng.integers(4, 13))
            mask = [0, 0] + [1] * (length - 2)
            return Example(rng.integers(0, 40, length).tolist(), mask, name)

        return [Group(f"g{i}", tuple(example(f"g{i}") for _ in range(width))) for i in range(count)]

    return make
