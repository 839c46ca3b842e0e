"""Sampling on meshes of eight devices against sampling on one device."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from stair_jax.decoding.sampling.sample import SamplingRows, sample, score
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.parallel.rules import BATCH_AXES, rows_sharding

ROWS = 32
MESHES = {"data 8": (8, 1, 1), "tensor 2": (2, 2, 2), "tensor 4": (2, 1, 4)}
KINDS = [
    (0.0, 0, 1.0),
    (1.2, 50, 0.9),
    (1.0, 0, 1.0),
    (1.0, 0, 0.9),
    (2.0, 0, 0.95),
    (0.8, 100, 1.0),
    (1.0, 80, 0.9),
]


_sample, _score = jax.jit(sample), jax.jit(score)


def make_inputs(vocab_size):
    """Logits (half of the rows with ties), settings of all kinds, and positions."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(ROWS, vocab_size)) * 1.5).astype(np.float32)
    logits[::2] = np.round(logits[::2] * 2) / 2
    logits[:, -3:] = -np.inf
    temperature, top_k, top_p = (np.array(KINDS)[np.arange(ROWS) % 7, i] for i in range(3))
    keys = rng.integers(0, 2**32, (ROWS, 2), dtype=np.uint32)
    rows = SamplingRows(np.float32(temperature), np.int32(top_k), np.float32(top_p), keys)
    return logits, rows, np.arange(ROWS, dtype=np.int32)


def place(mesh, logits, *rest):
    """Places logits as the model leaves them on a mesh, and the rows."""
    split = NamedSharding(mesh, PartitionSpec(BATCH_AXES, "tensor"))
    return jax.device_put(logits, split), *jax.device_put(rest, rows_sharding(mesh))


def compile_on(mesh, function, *inputs):
    with use_mesh(mesh):
        return jax.jit(function).lower(*inputs).compile()


@pytest.mark.parametrize(
    ("shape", "vocab_size"),
    [(MESHES["data 8"], 96), (MESHES["tensor 2"], 1024), (MESHES["tensor 4"], 96)],
    ids=MESHES,
)
def test_a_mesh_gives_the_tokens_of_one_device(shape, vocab_size):
    logits, rows, positions = make_inputs(vocab_size)
    mesh = make_mesh(MeshShape(*shape))
    inputs = place(mesh, logits, rows, positions)
    found = compile_on(mesh, sample, *inputs)
    for step in range(8):
        expected, expected_logps = _sample(logits, rows, positions + step)
        moved = place(mesh, logits, rows, positions + step)
        tokens, logps = found(*moved)
        np.testing.assert_array_equal(tokens, expected)
        np.testing.assert_allclose(logps, expected_logps, atol=1e-5)
    assert tokens.sharding.is_equivalent_to(rows_sharding(mesh), 1)


@pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
def test_scores_on_a_mesh_are_those_of_one_device(shape):
    logits, _, _ = make_inputs(96)
    ids = np.random.default_rng(1).integers(0, 96, (ROWS, 8)).astype(np.int32)
    mesh = make_mesh(MeshShape(*shape))
    inputs = place(mesh, logits, ids)
    found = compile_on(mesh, score, *inputs)(*inputs)
    np.testing.assert_allclose(found, _score(logits, ids), atol=1e-5)


@pytest.mark.parametrize("name", ["data 8", "tensor 4"])
def test_no_device_gathers_a_part_of_the_vocabulary(name):
    """In every branch, devices exchange at most the candidates of each row."""
    vocab_size, shape = 8192, MESHES[name]
    logits, rows, positions = make_inputs(vocab_size)
    ids = np.zeros((ROWS, 8), np.int32)
    mesh = make_mesh(MeshShape(*shape))
    local_rows = ROWS // (shape[0] * shape[1])

    def both(logits, rows, positions, ids):
        return sample(logits, rows, positions), score(logits, ids)

    compiled = compile_on(mesh, both, *place(mesh, logits, rows, positions, ids))
    sizes = collective_sizes(compiled.as_text())
    if shape[2] == 1:
        assert sizes == []
        return
    assert max(sizes) == local_rows * 64 * shape[2]  # the candidates of all devices
    assert max(sizes) < local_rows * vocab_size / shape[2]


def collective_sizes(text):
    """Number of elements that each collective of a compiled program returns per device."""
    pattern = r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
    found = []
    for shapes in re.findall(pattern + r"(?:-start)?\(", text):
        for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes):
            found.append(int(np.prod([int(size) for size in sizes.split(",") if size])))
    return found


def test_the_pattern_finds_collectives():
    """The test above would detect a gather of whole rows."""
    mesh = make_mesh(MeshShape(2, 1, 4))
    logits, *_ = make_inputs(512)
    whole = partial(jax.lax.with_sharding_constraint, shardings=rows_sharding(mesh))
    compiled = compile_on(mesh, lambda x: jnp.sort(whole(x)), *place(mesh, logits))
    assert max(collective_sizes(compiled.as_text())) == ROWS // 2 * 512
