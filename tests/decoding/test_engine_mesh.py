"""The engine on meshes of eight devices against the engine on one."""

import logging
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from stair_jax.decoding import programs
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key, run_all
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.parallel.rules import replicated, shardings

CONFIG = ModelConfig(
    vocab_size=59,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.3,
)
SIZES = {"num_slots": 16, "max_length": 32, "prefill_rows": 8, "buckets": ()}
MESHES = {"data 8": (8, 1, 1), "tensor 2": (2, 2, 2), "tensor 4": (2, 1, 4)}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half of the time; no other test has this config, and so these programs."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def on_mesh(shape):
    """A mesh, and config and parameters that are laid out on it."""
    mesh = make_mesh(MeshShape(*shape))
    config = fit_to_mesh(CONFIG, mesh, vocab_multiple=8)
    params = init_params(config, jax.random.key(1))
    return mesh, config, jax.device_put(params, shardings(logical_axes(config), mesh))


def make_engine(config, params, mesh=None):
    return Engine(config, params, **SIZES, steps_per_call=4, mesh=mesh)


def requests():
    """Greedy, sampled in three ways, and scored; some share a prompt, some are long."""
    settings = (
        Sampling(temperature=0.0, max_tokens=10),
        Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=10),
        Sampling(max_tokens=7),
        Sampling(top_p=0.8, max_tokens=12, stop_ids=(3, 9, 11)),
    )
    made = []
    for index in range(30):
        rng = np.random.default_rng(index // 3)
        tokens = tuple(rng.integers(0, 59, 1 + 5 * (index // 3) % 23).tolist())
        if index % 5 == 4:
            made.append(Request(index, tokens, score_ids=(1, 2, 58)))
        else:
            sampling = settings[index % len(settings)]
            made.append(Request(index, tokens, sampling=sampling, key=request_key(0, index)))
    return made


@pytest.fixture(scope="module")
def alone():
    return run_all(make_engine(CONFIG, init_params(CONFIG, jax.random.key(1))), requests())


@pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
def test_a_mesh_gives_the_tokens_of_one_device(shape, alone, caplog):
    mesh, config, params = on_mesh(shape)
    engine = make_engine(config, params, mesh)
    found = run_all(engine, requests())
    assert found.keys() == alone.keys()
    for id, completion in found.items():
        expected = alone[id]
        assert (completion.tokens, completion.finish) == (expected.tokens, expected.finish)
        np.testing.assert_allclose(completion.logps, expected.logps, atol=1e-4)
        np.testing.assert_allclose(completion.scores, expected.scores, atol=1e-4)
    heads = "tensor" if config.shard_kv_heads else None
    for array in engine._slots.cache.keys + engine._slots.cache.values:
        spec = P(("data", "fsdp"), None, heads)
        assert array.sharding.is_equivalent_to(jax.NamedSharding(mesh, spec), 4)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert run_all(make_engine(config, params, mesh), requests()) == found
    assert "Compiling" not in caplog.text


def test_decoding_moves_no_cache():
    """What devices exchange at each token is far smaller than the cache of one layer."""
    mesh, config, params = on_mesh((2, 2, 2))
    with use_mesh(mesh):
        slots = programs.empty_slots(config, 16, 1024)
        enough = jax.device_put(np.int32(0), replicated(mesh))
        compiled = programs.decode.lower(config, 4, params, slots, enough).compile()
    layer = slots.cache.keys[0].addressable_shards[0].data.size
    moved = re.findall(
        r"= \(?\w+\[([\d,]+)\]\S* (?:all-gather|all-reduce|all-to-all|collective-permute)\(",
        compiled.as_text(),
    )
    assert moved
    assert max(np.prod([int(size) for size in shape.split(",")]) for shape in moved) < layer / 4
    whole = sum(array.nbytes for array in jax.tree.leaves(slots))
    assert compiled.memory_analysis().alias_size_in_bytes == pytest.approx(whole / 8, rel=1e-3)
