"""The TPU backend: against the kernel's contract on a CPU, and compiled for TPUs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as kernels

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import View, get_paged_backend, page_axes
from stair_jax.models.paged.kv_pages import KVPages
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning.topology import get_topology

CONFIG = ModelConfig(40, 32, 48, 2, 4, 2, 64)
RAGGED, GATHER = get_paged_backend("ragged"), get_paged_backend("gather")
LAYERS, PAGES, PAGE_SIZE, WIDTH = 3, 512, 32, 64


def ragged_attention(queries, pages, kv_lens, page_indices, cu_q_lens, num_seqs, *, scale):
    """The kernel's contract: the queries of a row are the last tokens of its sequence."""
    out = np.zeros_like(queries)
    for row in range(num_seqs[0]):
        length = kv_lens[row]
        first, end = cu_q_lens[row : row + 2]
        assert end - first <= length
        # Padding beyond the table reads its first page.
        columns = np.arange(length) // pages.shape[1]
        ids = page_indices[row][np.where(columns < page_indices.shape[1], columns, 0)]
        tokens = np.float64(pages[ids, np.arange(length) % pages.shape[1]])
        for query in range(first, end):
            seen = tokens[: length - (end - 1 - query)]
            for head, vector in enumerate(queries[query]):
                key = 2 * (head * pages.shape[2] // 2 // queries.shape[1])
                weights = np.exp(seen[:, key] @ np.float64(vector) * scale)
                out[query, head] = weights @ seen[:, key + 1] / weights.sum()
    return out


@pytest.fixture
def kernel(monkeypatch):
    """Replaces the kernel by its contract, after the kernel's own checks of shapes."""

    def call(*args, sm_scale, **sizes):
        kernels.static_validate_inputs(*args, sm_scale=sm_scale, **sizes)
        result = jax.ShapeDtypeStruct(args[0].shape, args[0].dtype)
        return jax.pure_callback(
            lambda *args: ragged_attention(*map(np.asarray, args), scale=sm_scale), result, *args
        )

    monkeypatch.setattr(kernels, "ragged_paged_attention", call)


def interleaved(pages):
    """Pages in the layout of the kernel: interleaved keys and values, padded to whole lanes."""
    joined = np.stack(pages, axis=3).reshape(*pages[0].shape[:2], -1, pages[0].shape[3])
    return np.pad(joined, ((0, 0),) * 3 + ((0, 128 - joined.shape[3]),))


@pytest.mark.parametrize("length", [1, 3])
def test_the_kernel_is_asked_for_what_gather_computes(kernel, length):
    rng = np.random.default_rng(0)
    new = [rng.standard_normal((6, length, n, 64)).astype(np.float32) for n in (4, 2, 2)]
    pages = rng.standard_normal((2, 9, 4, 2, 64)).astype(np.float32)
    # The start of a sequence, two chunks of another one, one that shares its page, one at rest, and
    # one whose padding would stand beyond its table.
    table = [[1, 0, 0], [2, 3, 4], [2, 3, 4], [2, 5, 0], [0, 0, 0], [6, 7, 8]]
    counts = np.array([length, length, 1, max(length - 1, 1), 0, 1], np.int32)
    start = np.array([0, 5, 5 + length, 4, 9, 11], np.int32)
    view = View(np.array(table, np.int32), start, counts)
    expected, kept = jax.jit(GATHER.attend)(*new, KVPages(*pages), view)
    noise = rng.standard_normal((9, 4, 4, 128)).astype(np.float32)
    stacked = np.concatenate([noise, interleaved(pages), noise])
    out, found = jax.jit(RAGGED.attend)(*new, stacked, view._replace(base=9))
    counted = np.arange(length) < counts[:, None]
    np.testing.assert_allclose(out[counted], expected[counted], atol=2e-6)
    layers = np.concatenate([noise, interleaved(kept[:2]), noise])
    np.testing.assert_array_equal(found, layers)


def test_pages_of_8_bits_are_clipped_where_they_would_overflow(kernel):
    pages = RAGGED.empty(CONFIG, 3, 4, 1, "float8_e4m3fn")
    view = View(*(np.array(x, np.int32) for x in ([[2]], [1], [1])))
    key = np.full((1, 1, 2, 64), 1e4, np.float32)
    out, pages = jax.jit(RAGGED.attend)(0 * key.repeat(2, 2), key, -key, pages, view)
    assert pages[2, 1, :, 0].astype(float).tolist() == [448, -448, 448, -448]
    np.testing.assert_array_equal(out, np.full((1, 1, 4, 64), -224.0))


def test_pages_of_int8_are_refused():
    with pytest.raises(UserError, match=r"choose kv_dtype float8_e4m3fn, or .*\"gather\""):
        RAGGED.empty(CONFIG, 3, 4, 1, "int8")


@pytest.mark.parametrize(
    ("kv_heads", "kv_dtype"), [(1, "float8_e4m3fn"), (3, "bfloat16"), (5, "bfloat16")]
)
def test_heads_that_the_kernel_cannot_tile(kv_heads, kv_dtype):
    config = dataclasses.replace(
        CONFIG, num_attention_heads=30, num_key_value_heads=kv_heads, dtype="bfloat16"
    )
    pages = RAGGED.empty(config, 3, 4, 1, kv_dtype)
    new = [jnp.ones((1, 1, n, 64), jnp.bfloat16) for n in (30, kv_heads, kv_heads)]
    view = View(*(np.array(x, np.int32) for x in ([[2]], [1], [1])))
    with pytest.raises(UserError, match=f"cannot tile {kv_heads} KV heads of {kv_dtype}"):
        jax.eval_shape(RAGGED.attend, *new, pages, view)


def compiled(chip, config, rows, length, kv_dtype, mesh):
    """A scan over layers that all write into one donated buffer, and the buffer's bytes."""

    @partial(jax.jit, donate_argnums=0)
    def scanned(pages, queries, new, view):
        def layer(carry, args):
            (pages, hidden), (index, query, new) = carry, args
            here = view._replace(base=index * PAGES)
            out, pages = RAGGED.attend(query + hidden, new, new, pages, here)
            return (pages, out), None

        start = (pages, jnp.zeros_like(queries[0]))
        layers = (jnp.arange(LAYERS, dtype=jnp.int32), queries, new)
        return jax.lax.scan(layer, start, layers)[0]

    make = partial(RAGGED.empty, config, PAGES, PAGE_SIZE, LAYERS, kv_dtype)
    pages = jax.eval_shape(make)
    head_axes = jax.P(None, "batch", None, "activation_heads")
    tokens = (LAYERS, rows, length)
    shapes = [
        jax.ShapeDtypeStruct((*tokens, n, config.head_dim), jnp.bfloat16)
        for n in (config.num_attention_heads, config.num_key_value_heads)
    ]
    ints = [(rows, WIDTH), (rows,), (rows,)]
    view = View(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ints), base=0)
    axes = (page_axes(config, pages), head_axes, head_axes)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        (pages, *shapes),
        rules.shardings(axes, mesh),
    )
    with use_mesh(mesh):
        return scanned.lower(*placed, view).compile(), pages.size * pages.dtype.itemsize


DECODE, PREFILL = (256, 1), (16, 32)


@pytest.mark.parametrize(
    ("chip", "tensor", "kv_dtype", "shape"),
    [
        ("v5e:2x2", 4, "bfloat16", DECODE),
        ("v5e:2x2", 4, "bfloat16", PREFILL),
        ("v5p:1x1x1", 1, "bfloat16", DECODE),
        ("v5p:1x1x1", 1, "bfloat16", PREFILL),
        ("v6e:2x2", 4, "bfloat16", DECODE),
        ("v6e:2x2", 4, "bfloat16", PREFILL),
        ("v6e:2x2", 4, "float8_e4m3fn", DECODE),
    ],
)
def test_compiles_for_tpus_and_writes_in_place(chip, tensor, kv_dtype, shape):
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    mesh = make_mesh(MeshShape(tensor=tensor), get_topology(chip).devices)
    config = dataclasses.replace(
        CONFIG, num_attention_heads=32, num_key_value_heads=8, head_dim=128, dtype="bfloat16"
    )
    program, size = compiled(chip, config, *shape, kv_dtype, mesh)
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= size // tensor
    assert memory.temp_size_in_bytes < size // tensor / 8
