"""Growing the vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.vocabulary import resize_vocab
from stair_jax.parallel.mesh import MeshShape, make_mesh


@pytest.fixture(scope="module")
def untied():
    # Each dimension has its own mean and spread; row 7 was never trained.
    scale = np.linspace(0.1, 2.0, 16)
    rng = np.random.default_rng(0)
    params = {
        name: rng.standard_normal((500, 16)) * scale + scale for name in ("embedding", "head")
    }
    params = {name: jnp.asarray(rows, jnp.float32).at[7].set(50.0) for name, rows in params.items()}
    params["layers"] = {}
    config = ModelConfig(500, 16, 24, 1, 4, 2, 4)
    return params, config


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_new_and_untrained_rows_follow_the_trained_ones(untied, noise):
    params, config = untied
    resized, larger = resize_vocab(params, config, 2000, [7], jax.random.key(1), noise)
    assert larger.vocab_size == 2000
    trained = np.delete(np.arange(500), 7)
    for name in ("embedding", "head"):
        old, new = np.asarray(params[name]), np.asarray(resized[name])
        np.testing.assert_array_equal(new[trained], old[trained])
        drawn = new[[7, *range(500, 2000)]]
        mean, std = old[trained].mean(0), old[trained].std(0)
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.1 * noise * std.max() + 1e-4)
        np.testing.assert_allclose(drawn.std(0), noise * std, rtol=0.1, atol=1e-4)
    assert resized["layers"] is params["layers"] and params["embedding"].shape == (500, 16)


def test_embedding_and_head_have_draws_of_their_own(untied):
    params, config = untied
    params = params | {"head": params["embedding"]}
    resized, _ = resize_vocab(params, config, 501, [], jax.random.key(1))
    assert not np.array_equal(resized["embedding"][500], resized["head"][500])


def test_a_vocabulary_cannot_shrink(untied):
    with pytest.raises(UserError, match="500"):
        resize_vocab(*untied, 499, [], jax.random.key(0))


@pytest.mark.parametrize("shape", [MeshShape(1, 4, 2), MeshShape(2, 1, 4)], ids=str)
def test_rows_split_over_a_mesh_get_the_same_values(untied, shape):
    params, config = untied
    expected, _ = resize_vocab(params, config, 505, [7], jax.random.key(1))
    config = dataclasses.replace(config, vocab_multiple=8)
    sharding = NamedSharding(make_mesh(shape), PartitionSpec("tensor", "fsdp"))
    added = ((0, config.padded_vocab_size - 500), (0, 0))
    sharded = {
        name: jax.device_put(jnp.pad(params[name], added), sharding)
        for name in ("embedding", "head")
    }
    resized, larger = resize_vocab(sharded, config, 505, [7], jax.random.key(1))
    assert larger.padded_vocab_size == 512
    for name in ("embedding", "head"):
        assert resized[name].sharding == sharding
        np.testing.assert_allclose(resized[name][:505], expected[name], atol=1e-6)
        assert not np.asarray(resized[name])[505:].any()


def test_padding_is_used_before_rows_are_added(untied):
    """501 tokens fit into the 504 rows of a vocabulary of 500."""
    params, config = untied
    config = dataclasses.replace(config, vocab_multiple=8)
    padded = params | {
        name: jnp.pad(params[name], ((0, 4), (0, 0))) for name in ("embedding", "head")
    }
    expected, _ = resize_vocab(params, untied[1], 501, [], jax.random.key(1))
    resized, larger = resize_vocab(padded, config, 501, [], jax.random.key(1))
    assert resized["head"].shape == (larger.padded_vocab_size, 16) == (504, 16)
    np.testing.assert_array_equal(resized["head"][:501], expected["head"])
    assert not np.asarray(resized["head"])[501:].any()
