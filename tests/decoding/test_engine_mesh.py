"""The engine on meshes of eight devices against the engine on one device."""

import logging
import re
from typing import get_args

import jax
import numpy as np
import pytest

from stair_jax.decoding import programs
from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.decoding.slots import WIDTH
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.serving import fused_params
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import MeshShape, batch_devices, make_mesh
from stair_jax.parallel.placement import Placement
from stair_jax.parallel.rules import shardings

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
SIZES = {
    "num_slots": 16, "max_length": 32, "page_size": 4, "prefill_rows": 8, "prefill_width": 8,
    "steps_per_call": 4,
}  # fmt: skip
SHARD_TOKENS = 36  # little more than one sequence of maximum length
# On the last one each device holds both KV heads and one of the four query heads.
MESHES = {"all": (2, 2, 2), "tensor 4": (2, 1, 4)}


def on_mesh(shape):
    """A mesh, and a config and parameters that are placed on it."""
    mesh = make_mesh(MeshShape(*shape))
    config = fit_to_mesh(CONFIG, mesh, vocab_multiple=8)
    params = init_params(config, jax.random.key(1))
    return mesh, config, jax.device_put(params, shardings(logical_axes(config), mesh))


@pytest.fixture(scope="module", params=MESHES)
def placed(request):
    """A mesh, with config and parameters."""
    return on_mesh(MESHES[request.param])


@pytest.fixture(scope="module")
def make_engine(placed):
    """Creates an engine on a mesh with so few pages that sequences are preempted."""
    mesh, config, params = placed
    tokens = SHARD_TOKENS * batch_devices(mesh)
    return lambda: Engine(config, params, mesh=mesh, cache_tokens=tokens, **SIZES)


def requests():
    """Greedy, sampling and scoring requests; some share a prompt, some are long."""
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


def grow_trees(engine):
    """Completions by path of trees of kept sequences, whose nodes are shortened and released."""
    sampling, found = Sampling(temperature=1.2, top_k=50, top_p=0.9, max_tokens=7), {}
    level = {(tree,): engine.keep((tree, 5, 6, 7, 8)[: 2 + tree]) for tree in range(4)}
    kept = list(level.values())
    for _ in range(2):
        # A kept sequence that no request has computed yet, between parent and children.
        level = {path: engine.keep((9, 10), handle) for path, handle in level.items()}
        kept += level.values()
        children = [
            Request(
                (*path, number), (11,) * number, parent=handle, sampling=sampling,
                key=request_key(5, *path, number), keep=True,
            )
            for path, handle in level.items()
            for number in range(3)
        ]  # fmt: skip
        scores = [
            Request((*path, "score"), (12, 13), parent=handle, score_ids=(1, 2, 3))
            for path, handle in level.items()
        ]
        completions = run_all(engine, [*children, *scores])
        found |= completions
        # As a search does with a step that was sampled beyond its end.
        level = {
            path: engine.shorten(completion.handle, len(completion.handle.tokens) - 2)
            for path, completion in completions.items()
            if completion.handle
        }
        kept += level.values()
    for handle in kept:  # parents before their children
        engine.release(handle)
    return found


@pytest.fixture(scope="module")
def alone():
    """The results of an engine on one device, with room for everything."""
    params = init_params(CONFIG, jax.random.key(1))
    return [run(Engine(CONFIG, params, **SIZES)) for run in (run_requests, grow_trees)]


def run_requests(engine):
    return run_all(engine, requests())


def assert_same_but_for_rounding(found, expected):
    assert found.keys() == expected.keys()
    for id, completion in found.items():
        other = expected[id]
        assert (completion.tokens, completion.finish) == (other.tokens, other.finish)
        np.testing.assert_allclose(completion.logps, other.logps, atol=1e-4)
        np.testing.assert_allclose(completion.scores, other.scores, atol=1e-4)


def test_a_mesh_gives_the_tokens_of_one_device(placed, make_engine, alone, caplog):
    (mesh, config, _), engine = placed, make_engine()
    assert_same_but_for_rounding(run_requests(engine), alone[0])
    assert engine.stats.preempted > 0
    state = engine.device.state
    expected = shardings(programs.state_axes(config, state), mesh)
    for array, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    heads = 1 if mesh.shape["tensor"] == 2 else 2
    for array in jax.tree.leaves(state.pages):
        own = array.addressable_shards[0].data
        assert own.shape == (SHARD_TOKENS // 4 + 1, 4, heads, 8)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert_same_but_for_rounding(run_requests(make_engine()), alone[0])
    assert "Compiling" not in caplog.text


def test_kept_sequences_on_a_mesh(placed, make_engine, alone):
    """Which shard holds them, and whether they were evicted, affects their cost only."""
    engine = make_engine()
    assert_same_but_for_rounding(grow_trees(engine), alone[1])
    stats = engine.stats
    assert min(stats.reused, stats.evicted, stats.preempted) > 0
    assert engine.free == engine.capacity == batch_devices(placed[0]) * SHARD_TOKENS
    # Released handles leave nothing behind: the pages serve other requests.
    assert_same_but_for_rounding(run_requests(engine), alone[0])


@pytest.mark.parametrize("name", MESHES)
def test_decoding_moves_no_cache(name):
    """No collective is as large as the pages of one layer: pages are never moved."""
    mesh, config, params = on_mesh(MESHES[name])
    place, num_pages = Placement(mesh), 129
    fused = fused_params.fuse_params(config, params, stacked=False)
    shards = batch_devices(mesh)
    rows = {width: np.zeros((16, width), np.int32) for width in (2, 8, WIDTH)}
    two, eight, changes = (place.rows(array) for array in rows.values())
    jitted = programs.get_programs("cpu")
    with place.use():
        state = programs.empty_state(config, "gather", 16, shards * num_pages, 16, "float32")
        copied = place.rows(np.zeros(8 * shards, np.int32))
        line = place.rows(tuple(np.zeros((4 * shards, width), np.int32) for width in (WIDTH, 8)))
        calls = {
            decode_mode: jitted.decode.lower(
                config, "gather", 4, decode_mode, fused, state, changes, eight, *line
            )
            for decode_mode in get_args(programs.DecodeMode)
        } | {
            "prefill": jitted.prefill.lower(config, "gather", fused, state, eight, two, eight),
            "copy": jitted.copy_pages.lower(config, "gather", num_pages, state, copied, copied),
        }
        compiled = {kind: call.compile() for kind, call in calls.items()}
    own = [array.addressable_shards[0].data for array in jax.tree.leaves(state)]
    layer = state.pages[0].keys.addressable_shards[0].data.size
    for kind, program in compiled.items():
        moved = re.findall(
            r"= \(?\w+\[([\d,]*)\]\S* "
            r"(?:all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\(",
            program.as_text(),
        )
        sizes = [np.prod([int(size) for size in shape.split(",") if size]) for shape in moved]
        assert (kind == "copy") == (not sizes)
        assert max(sizes, default=0) < layer / 4
        size = sum(array.nbytes for array in own)
        assert program.memory_analysis().alias_size_in_bytes == pytest.approx(size, rel=1e-3)
