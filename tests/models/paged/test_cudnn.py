"""The calls to cuDNN's paged attention, on a machine without it."""

import dataclasses
import re
from inspect import signature
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged import cudnn
from stair_jax.models.paged.backends import View, get_paged_backend
from stair_jax.models.paged.kv_pages import KVPages

CONFIG = ModelConfig(40, 32, 48, 2, 4, 2, 8, dtype="bfloat16")
CUDNN, GATHER = get_paged_backend("cudnn"), get_paged_backend("gather")


def padded_attention(
    query, key, value, bias, q_seqlen, kv_seqlen, q_offsets, kv_offsets, page_table_k, page_table_v,
    scale, seed, dropout_rate, variadic_args, mask_type, layout, sliding_window_length,
    cudnn_version, return_residual,
):  # fmt: skip
    """What cuDNN computes: all queries of a row see its first `seen[b]` tokens; NaN for 0."""
    counted, seen, table, residual = q_seqlen, kv_seqlen, page_table_k, return_residual
    assert table is page_table_v and table.ndim == 4
    rows, width = table.shape[0], table.shape[2] * key.shape[1]
    keys, values = (x[table[:, 0, :, 0]].reshape(rows, width, -1, 8) for x in (key, value))
    keys, values = (jnp.repeat(x, query.shape[2] // x.shape[2], 2) for x in (keys, values))
    logits = jnp.einsum("btnh,bsnh->bnts", query, keys) * scale
    logits = jnp.where(jnp.arange(width) < seen[:, None, None, None], logits, -jnp.inf)
    out = jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(logits, -1), values)
    out = jnp.where((counted == query.shape[1])[:, None, None, None], out, jnp.nan)
    return (out, jax.nn.logsumexp(logits, -1)) if residual else out


def causal_attention(query, key, value, scale, mask_type, return_residual):
    """What cuDNN's public function computes for chunks."""
    assert return_residual and mask_type == "causal"
    keys, values = (jnp.repeat(x, query.shape[2] // x.shape[2], 2) for x in (key, value))
    logits = jnp.einsum("btnh,bsnh->bnts", query, keys) * scale
    index = jnp.arange(query.shape[1])
    logits = jnp.where(index[:, None] >= index, logits, -jnp.inf)
    out = jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(logits, -1), values)
    return out, jax.nn.logsumexp(logits, -1)


def of_jax_0_12(
    query, key, value, bias, q_seqlen, kv_seqlen, q_offsets, kv_offsets, page_table_k, page_table_v,
    score_mod_args, scale, seed, dropout_rate, variadic_args, mask_type, layout,
    sliding_window_length, score_mod, cudnn_version, return_residual,
):  # fmt: skip
    """The same function with the two more arguments of JAX 0.12."""
    assert score_mod_args == () and score_mod is None
    values = locals()
    return padded_attention(
        **{name: values[name] for name in signature(padded_attention).parameters}
    )


@pytest.mark.parametrize("kernel", [padded_attention, of_jax_0_12])
@pytest.mark.parametrize("length", [1, 3])
def test_calls_of_cudnn_add_up_to_causal_attention(monkeypatch, length, kernel):
    fake = SimpleNamespace(
        _dot_product_attention=kernel,
        dot_product_attention=causal_attention,
        MaskType=SimpleNamespace(PADDING="padding", CAUSAL="causal"),
        AttentionLayout=SimpleNamespace(BTNH=SimpleNamespace(value=0)),
        check_cudnn_version=lambda: 91000,
    )
    monkeypatch.setattr(cudnn, "_cudnn", lambda: fake)
    rng = np.random.default_rng(0)
    new = [rng.standard_normal((5, length, n, 8)).astype(np.float32) for n in (4, 2, 2)]
    pages = KVPages(*rng.standard_normal((2, 9, 4, 2, 8)).astype(np.float32))
    # A new sequence, two chunks of another one, one that shares its page, and an idle row.
    table = np.array([[1, 0, 0], [2, 3, 4], [2, 3, 4], [2, 5, 0], [0, 0, 0]])
    counts = np.array([length, length, 1, max(length - 1, 1), 0])
    view = View(table, np.array([0, 5, 5 + length, 4, 11]), counts)
    expected, kept = jax.jit(GATHER.attend)(*new, pages, view)
    out, found = jax.jit(CUDNN.attend)(*new, pages, view)
    counted = np.arange(length) < counts[:, None]
    np.testing.assert_allclose(out[counted], expected[counted], atol=2e-6)
    assert np.isfinite(out).all()
    jax.tree.map(np.testing.assert_array_equal, found, kept)


@pytest.mark.parametrize("length", [1, 16])
def test_lowers_for_cuda(monkeypatch, length):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    config = dataclasses.replace(CONFIG, head_dim=128)
    pages = jax.eval_shape(lambda: CUDNN.empty(config, 50, 64, 1, "bfloat16"))
    width = 12
    shapes = [jax.ShapeDtypeStruct((8, length, n, 128), jnp.bfloat16) for n in (4, 2, 2)]
    rows = jax.ShapeDtypeStruct((8,), jnp.int32)
    view = View(jax.ShapeDtypeStruct((8, width), jnp.int32), rows, rows)
    traced = jax.jit(CUDNN.attend).trace(*shapes, pages, view)
    out, found = traced.out_info
    assert (out.shape, out.dtype) == (shapes[0].shape, jnp.bfloat16)
    assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(lambda x: x.shape, pages)
    module = traced.lower(lowering_platforms=("cuda",)).as_text()
    paged, *own = re.findall(r"custom_call @__cudnn\$fmhaSoftmax\(.*", module)
    assert "mask_type\\22: \\22PADDING\\22" in paged and "is_paged_attention\\22: true" in paged
    assert len(own) == (length > 1) and all("mask_type\\22: \\22CAUSAL\\22" in call for call in own)


@pytest.mark.parametrize(
    ("changes", "kv_dtype", "said"),
    [
        ({"dtype": "float32"}, "float32", "computes in bfloat16 or float16, not in float32"),
        ({}, "int8", "keeps keys and values in bfloat16 only, not in int8"),
        ({"head_dim": 12}, "bfloat16", "a multiple of 8 and at most 256, not 12"),
        ({"head_dim": 264}, "bfloat16", "a multiple of 8 and at most 256, not 264"),
    ],
)
def test_what_cudnn_cannot_do_is_named(monkeypatch, changes, kv_dtype, said):
    with pytest.raises(UserError) as caught:
        CUDNN.empty(dataclasses.replace(CONFIG, **changes), 4, 4, 1, kv_dtype)
    assert said in str(caught.value) and 'runtime.attention="gather"' in str(caught.value)


def test_an_installation_without_cudnn(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", None)
    with pytest.raises(UserError, match=r'cuDNN is not detected.*runtime\.attention="gather"'):
        CUDNN.empty(CONFIG, 4, 4, 1, "bfloat16")
