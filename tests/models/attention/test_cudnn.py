"""The calls to cuDNN, on a machine without it: its kernel is replaced by a NumPy version."""

import dataclasses
import importlib
import re
from functools import partial
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.packing import most_sequences
from stair_jax.models.attention import cudnn as attention_cudnn
from stair_jax.models.attention.backends import default_backend, get_backend
from stair_jax.models.attention.cudnn import most_segments, segment_bounds
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import apply, init_params
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh

MODULE = "jax._src.cudnn.fused_attention_stablehlo"


def bounds(ids, most):
    starts, lengths = [], []
    for _, run in groupby(enumerate(ids), key=lambda pair: pair[1]):
        run = list(run)
        starts.append(run[0][0])
        lengths.append(len(run))
    fits = len(starts) <= most
    pad = [-1] * (most + 1)
    return (starts[:most] + pad)[: most + 1], (lengths + pad)[:most], fits


rows = st.lists(st.integers(1, 4), min_size=1, max_size=6)
bounds_of = jax.jit(segment_bounds, static_argnums=1)


@given(st.tuples(rows, rows, rows), st.sampled_from([2, 4]))
def test_bounds_of_segments(sizes, most):
    ids = np.zeros((len(sizes), 24), np.int32)
    for row, counts in zip(ids, sizes, strict=True):
        row[: sum(counts)] = np.repeat(np.arange(len(counts)) + 1, counts)
    starts, lengths, fits = bounds_of(ids, most)
    expected = [bounds(row, most) for row in ids]
    assert starts.tolist() == [start for start, _, _ in expected]
    assert lengths.tolist() == [length for _, length, _ in expected]
    assert fits.tolist() == [fit for *_, fit in expected]
    assert starts.dtype == lengths.dtype == jnp.int32


@pytest.fixture
def cudnn(monkeypatch):
    """The kernel's contract: causal attention within each segment; nothing else is written.

    Returns a list of the numbers of KV heads that it was called with.
    """
    module, called = importlib.import_module(MODULE), []

    def kernel(query, key, value, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type):
        called.append(key.shape[2])
        assert mask_type == module.MaskType.PADDING_CAUSAL
        assert q_seqlen is kv_seqlen and q_offsets is kv_offsets
        groups = query.shape[2] // key.shape[2]
        key, value = (np.float32(array).repeat(groups, axis=2) for array in (key, value))
        out = np.full(query.shape, np.nan, np.float32)
        for row, starts, lengths in zip(range(len(query)), q_offsets, q_seqlen, strict=True):
            for start, length in zip(starts[:-1], lengths, strict=True):
                if start < 0:
                    continue
                own = slice(start, start + length)
                logits = np.einsum("tnh,snh->nts", np.float32(query[row, own]), key[row, own])
                logits = np.where(np.tri(length, dtype=bool), logits * scale, -np.inf)
                weights = np.asarray(jax.nn.softmax(logits))
                out[row, own] = np.einsum("nts,snh->tnh", weights, value[row, own])
        return jnp.asarray(out, query.dtype)

    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91900)
    monkeypatch.setattr(module, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(module, "dot_product_attention", kernel)
    return called


def inputs(batch, length, heads=4, kv_heads=2, head_dim=8):
    rng = np.random.default_rng(0)
    shapes = [(batch, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
    return [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in shapes]


def test_packed_rows_agree_with_xla(cudnn):
    arrays = inputs(3, 20)
    ids = jnp.asarray([[1] * 20, [1] * 7 + [2] * 5 + [3] * 8, [1] * 3 + [2] * 9 + [0] * 8])
    out = get_backend("cudnn")(*arrays, ids)
    expected = get_backend("xla")(*arrays, ids)
    assert cudnn == [4]
    np.testing.assert_allclose(np.float32(out), np.float32(expected), atol=0.02)


@pytest.mark.parametrize("length", [16, 128, 2048, 8192])
def test_rows_are_packed_with_as_many_sequences_as_the_kernel_takes(length):
    assert most_sequences(length) == most_segments(length) - 1  # padding is one of them


def test_a_row_of_too_many_segments_is_not_a_number(cudnn):
    most = most_segments(40)
    arrays = inputs(2, 40)
    ids = np.stack([np.minimum(np.arange(40), most), np.minimum(np.arange(40), most - 1)])
    out = get_backend("cudnn")(*arrays, jnp.asarray(ids))
    assert np.isnan(np.float32(out[0])[:most]).all()
    assert np.isfinite(np.float32(out[1])).all()


def test_the_kernel_is_ready_for_as_many_segments_as_rows_may_have(cudnn):
    arrays, few = inputs(2, 20), jnp.asarray([[1] * 9 + [2] * 11, [1] * 4 + [2] * 6 + [0] * 10])
    out = get_backend("cudnn", 2)(*arrays, few)
    expected = get_backend("xla", 2)(*arrays, few)
    np.testing.assert_allclose(np.float32(out), np.float32(expected), atol=0.02)
    many = few.at[0, 15:].set(3).at[0, 18:].set(4)
    out = np.float32(get_backend("cudnn", 2)(*arrays, many))
    assert np.isnan(out[0, :18]).all()
    assert np.isfinite(out[1]).all()


@pytest.mark.parametrize(("row_sequences", "packed"), [(0, True), (2, True), (1, False)])
def test_rows_of_one_sequence_need_no_packed_kernel(gpu, row_sequences, packed):
    config = ModelConfig(32, 16, 32, 1, 2, 1, 8, dtype="bfloat16", row_sequences=row_sequences)
    config = dataclasses.replace(config, attention="cudnn")
    params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    program = str(jax.make_jaxpr(partial(apply, config))(params, ids, ids, ids))
    assert "dot_product_attention_fwd_wrapper[" in program
    assert ("PADDING_CAUSAL" in program) == packed


def test_other_rows_go_through_the_public_function(cudnn, monkeypatch):
    asked = []

    def public(query, key, value, **options):
        asked.append(options)
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", public)
    arrays, ids = inputs(1, 4), jnp.asarray([[1, 1, 1, 1]])
    get_backend("cudnn")(*arrays)
    get_backend("cudnn")(*arrays, ids, jnp.asarray([[4, 2, 4, 4]]))
    monkeypatch.setattr(
        importlib.import_module(MODULE), "check_compute_capability", lambda capability: False
    )
    get_backend("cudnn")(*arrays, ids)
    assert asked[0] == {"is_causal": True, "implementation": "cudnn"}
    tree = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    assert asked[1].pop("mask").astype(int).tolist() == [[tree]]
    assert asked[2].pop("mask").astype(int).tolist() == [[np.tri(4).astype(int).tolist()]]
    assert asked[0] == asked[1] == asked[2]


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that there is a GPU, for programs that are traced and lowered, but not run."""
    module = importlib.import_module(MODULE)
    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91900)
    monkeypatch.setattr(module, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(module, "is_cuda_compute_capability_equal", lambda capability: False)


@pytest.mark.parametrize("is_tree", [False, True])
def test_each_gpu_of_a_mesh_is_given_its_rows_and_heads(gpu, is_tree):
    """Checks the operands of the forward and backward kernels in the lowered program."""
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
    rows = rules.rows_sharding(mesh)

    def total(*arrays):
        *arrays, ids, ends = arrays
        out = get_backend("cudnn")(*arrays, ids, ends if is_tree else None)
        return jnp.sum(out.astype(jnp.float32))

    query, key = (
        jax.ShapeDtypeStruct((8, 64, heads, 128), jnp.bfloat16, sharding=rows) for heads in (8, 4)
    )
    ids = jax.ShapeDtypeStruct((8, 64), jnp.int32, sharding=rows)
    with use_mesh(mesh):
        traced = jax.jit(jax.grad(total, (0, 1, 2))).trace(query, key, key, ids, ids)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"custom_call @__cudnn.*? : \((.*?)\) ->", program)
    queries, keys = "tensor<2x64x4x128xbf16>", "tensor<2x64x2x128xbf16>"
    if is_tree:
        extra, statistic = ["tensor<2x1x64x64xbf16>"], "tensor<2x4x64xf32>"
        last = [queries, *extra, queries]
    else:
        bounds = ["tensor<2x16xi32>"] * 2 + ["tensor<2x17xi32>"] * 2
        extra, statistic, last = bounds, "tensor<32x4x64xf32>", [queries, queries, *bounds]
        keys = queries  # repeated for the query heads
    assert calls == [
        ", ".join([queries, keys, keys, *extra]),
        ", ".join([queries, keys, keys, statistic, *last]),
    ]


@pytest.mark.parametrize(("policy", "runs"), [("full", 2), ("dots", 2), ("attention", 1)])
def test_policies_that_keep_attention_run_its_kernel_once(gpu, policy, runs):
    config = ModelConfig(32, 16, 32, 2, 2, 1, 8, dtype="bfloat16", remat=policy, attention="cudnn")
    params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((2, 16), jnp.int32)

    def total(params, ids):
        return jnp.sum(apply(config, params, ids, ids, ids).astype(jnp.float32))

    program = str(jax.make_jaxpr(jax.grad(total))(params, ids))
    assert program.count("dot_product_attention_fwd_wrapper[") == runs
    assert program.count("dot_product_attention_bwd_wrapper[") == 1


def test_the_default_on_gpus_is_cudnn_where_it_can(cudnn):
    assert default_backend("gpu", "bfloat16", 2048, 128) == "cudnn"
    assert default_backend("cuda", "float16", 2048, 256) == "cudnn"
    assert default_backend("gpu", "bfloat16", 2047, 128) == "xla"
    assert default_backend("gpu", "bfloat16", 2048, 100) == "xla"
    assert default_backend("gpu", "float32", 2048, 128) == "xla"
    assert "multiple of 8" in attention_cudnn.problem("bfloat16", 2048, 100)
