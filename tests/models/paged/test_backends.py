"""Paged-attention backends against a float64 reference."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged import kv_pages
from stair_jax.models.paged.backends import (
    View,
    default_paged_backend,
    get_paged_backend,
    page_axes,
)
from stair_jax.models.quantization import quantize
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, batch_devices, make_mesh, use_mesh

CONFIG = ModelConfig(40, 32, 48, 2, 6, 2, 8)
GATHER = get_paged_backend("gather")
attend = jax.jit(GATHER.attend)


def slots_of(view, row, length, page_size):
    """Pages and offsets of the first tokens of a row's sequence."""
    index = np.arange(length)
    return np.asarray(view.table)[row][index // page_size] + int(view.base), index % page_size


def written(pages, new, view):
    """`pages[N, page, heads, H]` with the tokens of `new[B, T, heads, H]` that are not padding."""
    pages = np.array(pages)
    for row, (start, length) in enumerate(zip(view.start, view.length, strict=True)):
        if length:
            ids, offsets = slots_of(view, row, start + length, pages.shape[1])
            pages[ids[start:], offsets[start:]] = new[row, :length]
    return pages


def attended(query, keys, values, view):
    """Attention over written pages in float64; NaN for padding."""
    out = np.full(query.shape, np.nan)
    heads, head_dim = query.shape[2:]
    own = np.arange(heads) * keys.shape[2] // heads
    for row, token in np.argwhere(counted(query, view)):
        slots = slots_of(view, row, view.start[row] + token + 1, keys.shape[1])
        key, value = (np.float64(x[slots][:, own]) for x in (keys, values))
        logits = np.einsum("nh,snh->sn", np.float64(query[row, token]), key)
        weights = np.exp(logits / np.sqrt(head_dim))
        out[row, token] = np.einsum("sn,snh->nh", weights / weights.sum(0), value)
    return out


def counted(query, view):
    return np.arange(query.shape[1]) < np.asarray(view.length)[:, None]


def random_view(rng, rows, length, page_size, width):
    """Idle rows, new sequences (some sharing pages), and consecutive chunks of one sequence."""
    free, room = list(1 + rng.permutation(rows * width)), width * page_size
    table = np.zeros((rows, width), np.int32)
    start, count = np.zeros((2, rows), np.int32)
    for row in range(rows):
        kind, before = rng.choice(["rest", "follow", "share", "new"]), row - 1
        if kind == "rest":
            start[row] = rng.integers(0, room)
            continue
        end = start[before] + count[before] if row and count[before] else room
        if kind == "follow" and end < room:
            table[row], start[row] = table[before], end
        else:
            # Shared pages are full: none of their slots is written any more.
            shared = start[before] // page_size if kind == "share" and end < room else 0
            table[row, :shared] = table[before, :shared]
            table[row, shared:] = [free.pop() for _ in range(width - shared)]
            start[row] = rng.integers(shared * page_size, room)
        count[row] = rng.integers(1, min(length, room - start[row]) + 1)
    used = -(-(start + count) // page_size)
    return View(table * ((np.arange(width) < used[:, None]) & (count > 0)[:, None]), start, count)


def random_call(rng, config, view, length, num_pages, page_size):
    """query, key, value, and keys and values of pages full of leftovers."""
    shape = (len(view.table), length)
    heads = [config.num_attention_heads, *[config.num_key_value_heads] * 2]
    new = [2 * rng.standard_normal((*shape, n, config.head_dim)).astype(np.float32) for n in heads]
    pages = (2, num_pages, page_size, heads[1], config.head_dim)
    return *new, *rng.standard_normal(pages).astype(np.float32)


SHAPES = [(1, 1, 20), (64, 1, 2), (4, 7, 5), (16, 24, 5), (64, 5, 2)]


@pytest.mark.parametrize(("page_size", "length", "width"), SHAPES)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_gather_equals_loops_in_float64(page_size, length, width, seed):
    rng, rows = np.random.default_rng(seed), 6
    view = random_view(rng, rows, length, page_size, width)
    num_pages = 1 + rows * width
    query, key, value, *pages = random_call(rng, CONFIG, view, length, num_pages, page_size)
    out, found = attend(query, key, value, kv_pages.KVPages(*pages), view)
    keys, values = written(pages[0], key, view), written(pages[1], value, view)
    # Bitwise: only the slots of tokens that are not padding are touched.
    np.testing.assert_array_equal(found.keys, keys)
    np.testing.assert_array_equal(found.values, values)
    assert np.isfinite(out).all()
    mask = counted(query, view)
    np.testing.assert_allclose(out[mask], attended(query, keys, values, view)[mask], atol=2e-5)


def test_padding_is_written_nowhere():
    pages = GATHER.empty(CONFIG, 4, 4, 1, "float32")
    table = jnp.array([[2, 3], [1, 0], [3, 1]])
    view = View(table, start=jnp.array([3, 1, 5]), length=jnp.array([2, 1, 0]))
    new = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1) * jnp.ones((3, 3, 2, 8))
    _, pages = attend(jnp.ones((3, 3, 6, 8)), new, -new, pages, view)
    found = pages.keys[:, :, 0, 0]
    assert found.tolist() == [[0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 1], [2, 0, 0, 0]]
    np.testing.assert_array_equal(pages.values, -pages.keys)


def test_base_selects_a_layer_of_a_shared_array():
    rng = np.random.default_rng(0)
    view = random_view(rng, 6, 5, 4, 5)
    query, key, value, *pages = random_call(rng, CONFIG, view, 5, 31, 4)
    noise = rng.standard_normal((2, 31, 4, 2, 8)).astype(np.float32)
    expected, own = attend(query, key, value, kv_pages.KVPages(*pages), view)
    stacked = kv_pages.KVPages(
        *(np.concatenate([n, p, n]) for n, p in zip(noise, pages, strict=True))
    )
    out, found = attend(query, key, value, stacked, view._replace(base=31))
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(found.keys, np.concatenate([noise[0], own.keys, noise[0]]))


@pytest.mark.parametrize("length", [1, 4])
def test_a_row_has_the_same_bits_whatever_the_others_hold(length):
    rng, rows, config = np.random.default_rng(2), 16, CONFIG
    view = View(1 + np.arange(rows * 8, dtype=np.int32).reshape(rows, 8), *np.ones((2, rows), int))
    view = view._replace(start=rng.integers(0, 20, rows), length=np.full(rows, length))
    call = random_call(rng, config, view, length, 129, 16)
    expected, _ = attend(*call[:3], kv_pages.KVPages(*call[3:]), view)
    for row, moved in ((0, 15), (7, 2)):
        # The others reach to the end of their tables, which takes more blocks.
        other = view._replace(start=rng.integers(0, 128 - length, rows))
        others = random_call(rng, config, other, length, 129, 16)
        for mine, theirs in zip(call[:3], others[:3], strict=True):
            theirs[moved] = mine[row]
        for mine, theirs in zip(call[3:], others[3:], strict=True):
            theirs[view.table[moved]] = mine[view.table[row]]
        other.start[moved] = view.start[row]
        out, _ = attend(*others[:3], kv_pages.KVPages(*others[3:]), other)
        np.testing.assert_array_equal(out[moved], expected[row])


def test_a_decoding_loop_updates_donated_pages_in_place(optimised):
    rows, steps = 32, 5
    pages = [GATHER.empty(CONFIG, 1 + rows * 32, 16, 1, "float32") for _ in range(2)]
    table = 1 + jnp.arange(rows * 32).reshape(rows, 32)

    @partial(jax.jit, donate_argnums=0)
    def decode(pages, query, key):
        def step(index, carry):
            pages, query = carry
            view = View(table, jnp.full(rows, index), jnp.ones(rows, jnp.int32))
            for layer, own in enumerate(pages):
                query, own = GATHER.attend(query, key, key, own, view)
                pages = [*pages[:layer], own, *pages[layer + 1 :]]
            return pages, query

        return jax.lax.fori_loop(0, steps, step, (pages, query))

    compiled = decode.lower(pages, jnp.ones((rows, 1, 6, 8)), jnp.ones((rows, 1, 2, 8))).compile()
    size = sum(array.nbytes for array in jax.tree.leaves(pages))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size / 2
    assert not re.findall(r"= f32\[1025,16,2,8\]\S* copy\(", compiled.as_text())


@pytest.mark.parametrize("kv_dtype", ["int8", "float8_e4m3fn"])
def test_pages_of_8_bits_hold_numbers_within_their_rounding(kv_dtype):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((64, 8)).astype(np.float32) * 10.0 ** rng.uniform(-6, 6, (64, 1))
    x = np.concatenate([x, np.zeros((1, 8))]).astype(np.float32)
    entries, scale = quantize(jnp.asarray(x), kv_dtype)
    assert entries.dtype == kv_dtype and scale.dtype == np.float32
    largest = np.abs(x).max(-1, keepdims=True)
    if kv_dtype == "int8":
        bound = largest / 127 / 2
    else:  # three bits of mantissa; the smallest steps are 2**-9
        bound = np.maximum(np.abs(x) * 2.0**-4, largest / 448 * 2.0**-10)
    found = np.float64(entries) * np.float64(scale)[:, None]
    assert (np.abs(found - x) <= bound * (1 + 1e-5)).all()


@pytest.mark.parametrize(("kv_dtype", "most"), [("int8", 0.1), ("float8_e4m3fn", 0.3)])
@pytest.mark.parametrize("length", [1, 7])
def test_attention_over_pages_of_8_bits(kv_dtype, most, length):
    rng = np.random.default_rng(4)
    view = random_view(rng, 8, length, 4, 5)
    query, key, value, *pages = random_call(rng, CONFIG, view, length, 41, 4)
    quantised = [quantize(jnp.asarray(x), kv_dtype) for x in pages]
    (keys, key_scales), (values, value_scales) = quantised
    empty = GATHER.empty(CONFIG, 41, 4, 1, kv_dtype)
    given = kv_pages.KVPages(keys, values, key_scales, value_scales)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (given, empty))
    assert shapes[0] == shapes[1]
    out, found = attend(query, key, value, given, view)
    read = [np.float64(found[i]) * np.float64(found[i + 2])[..., None] for i in (0, 1)]
    mask = counted(query, view)
    np.testing.assert_allclose(out[mask], attended(query, *read, view)[mask], atol=2e-5)
    exact = [written(old, new, view) for old, new in zip(pages, (key, value), strict=True)]
    assert np.abs(out - attended(query, *exact, view))[mask].max() < most


@pytest.mark.parametrize(
    ("shape", "heads", "kv_heads", "length"),
    [
        (MeshShape(8, 1, 1), 6, 2, 1),
        (MeshShape(2, 1, 2), 6, 2, 3),
        (MeshShape(2, 2, 2), 4, 2, 1),
        (MeshShape(1, 1, 4), 8, 2, 1),  # whole KV heads, of which a device needs one
        (MeshShape(1, 2, 2), 6, 3, 3),  # whole KV heads, of which a device needs two
    ],
    ids=str,
)
def test_on_a_mesh_rows_and_heads_stay_where_they_are(shape, heads, kv_heads, length):
    mesh, rng = make_mesh(shape), np.random.default_rng(5)
    config = dataclasses.replace(
        CONFIG,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        shard_kv_heads=kv_heads % shape.tensor == 0,
    )
    shards, rows, num_pages = batch_devices(mesh), 2, 11
    views = [random_view(rng, rows, length, 4, 5) for _ in range(shards)]
    calls = [random_call(rng, config, view, length, num_pages, 4) for view in views]
    alone = [
        attend(*call[:3], kv_pages.KVPages(*call[3:]), view)
        for call, view in zip(calls, views, strict=True)
    ]

    call = [np.concatenate(arrays) for arrays in zip(*calls, strict=True)]
    view = View(*(np.concatenate(arrays) for arrays in zip(*(v[:3] for v in views), strict=True)))
    pages = kv_pages.KVPages(*call[3:])
    pages = jax.device_put(pages, rules.shardings(page_axes(config, pages), mesh))
    new_axes = jax.P("batch", None, "activation_heads")
    kv_axes = page_axes(config, call[1])
    new = jax.device_put(call[:3], rules.shardings([new_axes, kv_axes, kv_axes], mesh))
    view = View(*jax.device_put(view[:3], rules.rows_sharding(mesh)))
    with use_mesh(mesh):
        compiled = jax.jit(GATHER.attend).lower(*new, pages, view).compile()
    out, found = compiled(*new, pages, view)
    for leaf in found[:2]:
        assert leaf.sharding.is_equivalent_to(pages.keys.sharding, leaf.ndim)
    exchanges = r"(all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\("
    assert not re.findall(exchanges, compiled.as_text())
    out, keys = np.asarray(out), np.asarray(found.keys)
    for shard, (expected, own) in enumerate(alone):
        np.testing.assert_allclose(out[shard * rows :][:rows], expected, atol=2e-5)
        np.testing.assert_array_equal(keys[shard * num_pages :][:num_pages], own.keys)


def test_backends_by_name_and_by_platform():
    with pytest.raises(UserError) as caught:
        get_paged_backend("flash")
    assert str(caught.value) == (
        "runtime.attention 'flash' is unknown: choose one of cudnn, gather, ragged"
    )
    found = {
        (platform, dtype, kv_dtype): default_paged_backend(platform, dtype, kv_dtype)
        for platform in ("cpu", "gpu", "tpu", "metal")
        for dtype in ("bfloat16", "float32")
        for kv_dtype in (dtype, "int8", "float8_e4m3fn")
    }
    assert {key for key, name in found.items() if name == "cudnn"} == {
        ("gpu", "bfloat16", "bfloat16")
    }
    ragged = {key for key, name in found.items() if name == "ragged"}
    assert ragged == {key for key in found if key[0] == "tpu" and key[2] != "int8"}


def test_a_kv_dtype_that_is_not_known():
    with pytest.raises(UserError) as caught:
        GATHER.empty(CONFIG, 4, 4, 1, "bfloat16")
    assert str(caught.value) == (
        "kv_dtype 'bfloat16' is unknown: choose one of float32, float8_e4m3fn, int8"
    )
