"""The TPU backend: its kernel interpreted on a CPU against `gather`, and compiled for TPUs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.decoding.driver import run_all
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged import ragged
from stair_jax.models.paged.backends import View, get_paged_backend, page_axes
from stair_jax.models.paged.kv_pages import KVPages
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning.topology import get_topology
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tpu_interpreter import problem, tpu_interpreter

CONFIG = ModelConfig(40, 32, 48, 2, 4, 2, 64)
RAGGED, GATHER = get_paged_backend("ragged"), get_paged_backend("gather")
LAYERS, PAGES, PAGE_SIZE, WIDTH = 3, 512, 32, 64


@pytest.fixture
def interpreter():
    """Runs the kernel itself, interpreted on a CPU as on a TPU."""
    if reason := problem():
        pytest.skip(reason)
    with tpu_interpreter():
        yield


def interleaved(pages):
    """Pages in the layout of the kernel: interleaved keys and values, padded to whole lanes."""
    joined = np.stack(pages, axis=3).reshape(*pages[0].shape[:2], -1, pages[0].shape[3])
    return np.pad(joined, ((0, 0),) * 3 + ((0, 128 - joined.shape[3]),))


def separate(pages):
    """Keys and values of 64 dimensions, of pages in the layout of the kernel."""
    return pages[:, :, ::2, :64], pages[:, :, 1::2, :64]


def mixed_view(length, page_size):
    """The start of a sequence, two chunks of one, one that shares its page, idle rows, long ones.

    The padding of the last row stands beyond its table.
    """
    counts = [length, length, 1, max(length - 1, 1), 0, 1, length, 0, 1]
    start = [0, page_size + 1, page_size + 1 + length, page_size, 9, 1, 2 * page_size - 1, 0]
    start.append(4 * page_size - 1)
    table = [[1, 0, 0, 0], [2, 3, 4, 0], [2, 3, 4, 0], [2, 5, 0, 0], [0] * 4, [6, 0, 0, 0]]
    table += [[7, 8, 9, 0], [0] * 4, [10, 11, 12, 13]]
    return View(*(np.array(values, np.int32) for values in (table, start, counts)))


@pytest.mark.parametrize(
    ("length", "page_size", "heads", "kv_heads", "dtype", "kv_dtype"),
    [
        (1, 4, 4, 2, "bfloat16", "bfloat16"),
        (3, 4, 4, 2, "bfloat16", "bfloat16"),
        (3, 2, 8, 8, "float32", "float32"),  # two blocks of heads
        (1, 16, 6, 2, "bfloat16", "float8_e4m3fn"),
    ],
)
def test_the_kernel_computes_what_gather_does(
    monkeypatch, interpreter, length, page_size, heads, kv_heads, dtype, kv_dtype
):
    monkeypatch.setattr(ragged, "_PAGES_A_BLOCK", 2)  # so that sequences have several blocks
    rng = np.random.default_rng(0)
    view = mixed_view(length, page_size)
    rows = len(view.start)
    query, *new = (
        rng.standard_normal((rows, length, n, 64)).astype(dtype)
        for n in (heads, kv_heads, kv_heads)
    )
    pages = rng.standard_normal((2, 14, page_size, kv_heads, 64)).astype(kv_dtype)
    # The reference computes in float32 with the values that the kernel has.
    exact = [x.astype(kv_dtype).astype(np.float32) for x in (*new, *pages)]
    expected, kept = jax.jit(GATHER.attend)(
        query.astype(np.float32), *exact[:2], KVPages(*exact[2:]), view
    )
    noise = rng.standard_normal((14, page_size, 2 * kv_heads, 128)).astype(kv_dtype)
    stacked = np.concatenate([noise, interleaved(pages), noise])
    out, found = jax.jit(RAGGED.attend)(query, *new, stacked, view._replace(base=14))
    assert out.dtype == dtype
    out = np.float32(out)
    counted = np.arange(length) < view.length[:, None]
    rounding = 2.0**-8 if dtype == "bfloat16" else 0
    np.testing.assert_allclose(out[counted], expected[counted], atol=2e-6, rtol=rounding)
    assert np.isfinite(out).all()
    layers = np.concatenate([noise, interleaved(kept[:2]).astype(kv_dtype), noise])
    np.testing.assert_array_equal(np.float32(found), np.float32(layers))


def test_devices_attend_with_their_own_heads_and_pages(interpreter):
    rng = np.random.default_rng(0)
    new = [rng.standard_normal((2, 1, n, 64)).astype(np.float32) for n in (4, 2, 2)]
    pages = rng.standard_normal((8, 4, 4, 128)).astype(np.float32)
    view = View(*(np.array(x, np.int32) for x in ([[1, 2], [3, 0]], [5, 2], [1, 1])))
    expected = jax.jit(GATHER.attend)(*new, KVPages(*separate(pages)), view)[0]
    with use_mesh(make_mesh(MeshShape(tensor=2), jax.devices()[:2])):
        out = jax.jit(RAGGED.attend)(*new, pages, view)[0]
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.slow
def test_a_greedy_continuation_is_that_of_gather(monkeypatch, interpreter):
    monkeypatch.setattr(EngineConfig, "decode_mode", "full")  # as on TPUs
    monkeypatch.setattr(ragged, "_PAGES_A_BLOCK", 2)
    config, params = tiny_model()
    greedy = Sampling(temperature=0, max_tokens=5)
    requests = [
        Request(index, tuple(range(1, 1 + length)), sampling=greedy)
        for index, length in enumerate((11, 3))
    ]
    sizes = {"num_slots": 2, "max_length": 16, "page_size": 4, "steps_per_call": 5}
    found, expected = (
        run_all(
            Engine(config, params, attention=name, prefill_rows=2, prefill_width=8, **sizes),
            requests,
        )
        for name in ("ragged", "gather")
    )
    for index, completion in expected.items():
        assert found[index].tokens == completion.tokens
        np.testing.assert_allclose(found[index].logps, completion.logps, atol=1e-5)


def test_pages_of_8_bits_are_clipped_where_they_would_overflow(interpreter):
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
