"""Adapters beside fused kernels against the training model, which has them beside plain ones."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.models import lora
from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import Lora
from stair_jax.models.paged.backends import View, get_paged_backend
from stair_jax.models.quantization import Quantized
from stair_jax.models.serving.fused_adapters import Adapter, fuse_model, rows_of_adapters
from stair_jax.models.serving.fused_params import fused_axes
from stair_jax.models.serving.paged_forward import forward, logits
from stair_jax.models.transformer import apply, init_params, output_embedding
from stair_jax.testing.merging import merge

CONFIG = ModelConfig(61, 32, 48, 2, 8, 2, 8, initializer_range=0.3)
QWEN2 = dataclasses.replace(CONFIG, model_type="qwen2")
APART = get_paged_backend("gather")
STACKED = APART._replace(stacked=True)
LORAS = (
    Lora(4, 2.0),
    Lora(6, 0.5, ("key", "out", "up")),
    Lora(1, 1.0, ("down",)),
)
TOKENS = np.random.default_rng(0).integers(0, 61, (4, 11)).astype(np.int32)
ROWS = np.array([0, 1, 2, 3], np.int32)


def random_params(config, seed=1):
    """Of similar scale, norms, biases and adapters too."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), a.dtype), shapes)


def make_adapters(config, loras=LORAS):
    return [
        Adapter(each, lora.split(random_params(dataclasses.replace(config, lora=each), seed))[1])
        for seed, each in enumerate(loras, start=2)
    ]


@partial(jax.jit, static_argnums=(0, 2))
def serve(config, fused, backend, adapter):
    """Hidden states [B, T, D] of whole sequences."""
    count = config.num_hidden_layers
    layers = [APART.empty(config, 13 * n, 4, 1, config.dtype) for n in (1, count)]
    pages = layers[1] if backend.stacked else (layers[0],) * count
    table = 1 + jnp.arange(12, dtype=jnp.int32).reshape(4, 3)
    view = View(table, jnp.zeros(4, jnp.int32), jnp.full(4, 11, jnp.int32))
    return forward(config, fused, backend, TOKENS, pages, view, adapter)[0]


@partial(jax.jit, static_argnums=0)
def train(config, params):
    positions = jnp.broadcast_to(jnp.arange(11), TOKENS.shape)
    return apply(config, params, TOKENS, positions)


@pytest.fixture(scope="module")
def expected():
    """Row n of the hidden states [4, T, D] is of the n-th model by the training model."""
    base, found = random_params(QWEN2), []
    for number, adapter in enumerate([None, *make_adapters(QWEN2)]):
        config, params = QWEN2, base
        if adapter is not None:
            config = dataclasses.replace(config, lora=adapter.lora)
            params = {**base, "layers": base["layers"] | adapter.params["layers"]}
        found.append(train(config, params)[number])
    return np.stack(found)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("shard_kv_heads", [False, True])
def test_each_row_is_of_its_own_model(stacked, shard_kv_heads, expected):
    config = dataclasses.replace(QWEN2, shard_kv_heads=shard_kv_heads)
    fused = fuse_model(config, random_params(QWEN2), make_adapters(config), stacked=stacked)
    backend = STACKED if stacked else APART
    found = serve(config, fused, backend, ROWS)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_adapters_stay_whole_beside_kernels_of_eight_bits(weights):
    """Where the base has nothing to say, so that only the adapters are left, nothing is rounded."""
    params = random_params(CONFIG)
    kernels = ("query", "key", "value", "out", "gate", "up", "down")
    params["layers"] |= {name: 0 * params["layers"][name] for name in kernels}
    make = partial(fuse_model, CONFIG, params, make_adapters(CONFIG), stacked=False)
    fused = make(weights=weights)
    assert isinstance(fused.layers[0]["qkv"], Quantized)
    found, exact = (serve(CONFIG, each, APART, ROWS) for each in (fused, make()))
    np.testing.assert_allclose(found, exact, atol=1e-6)
    assert np.abs(exact[1] - exact[0]).max() > 1


def test_rows_of_the_base_are_those_of_a_model_without_adapters():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params = random_params(CONFIG)
    make = partial(fuse_model, config, params, weights="int8", stacked=False)
    found = serve(config, make(make_adapters(config)), APART, np.array([0, 1, 0, 2], np.int32))
    exact = serve(config, make(), APART, None)
    np.testing.assert_array_equal(found[::2], exact[::2])
    assert np.any(found[1] != exact[1])


@pytest.mark.parametrize("is_tied", [False, True])
def test_tokens_have_rows_of_their_own_in_each_model(is_tied):
    family = {"model_type": "gemma", "tie_word_embeddings": True}  # which scales the embedding
    config = dataclasses.replace(CONFIG, **(family if is_tied else {}))
    first, *others = TOKENS[1, :3].tolist()
    ids = ((first, *others), (TOKENS[2, 0].item(),), ())
    loras = [Lora(2, 1.0, ("down",), token_ids=own) for own in ids]
    base, adapters = random_params(config), make_adapters(config, loras)
    fused = fuse_model(config, base, adapters, stacked=False)
    assert fused.rows.ids.tolist()[1:] == [[TOKENS[2, 0], -1, -1], [-1] * 3]
    hidden = serve(config, fused, APART, ROWS)[:, -1]
    found = logits(config, fused, hidden, ROWS)
    for number, adapter in enumerate([None, *adapters]):
        params = base
        if adapter is not None:
            joined = jax.tree.map(jnp.copy, lora.join(base, adapter.params))
            params = merge(adapter.lora, joined)
        last = train(config, params)[number, -1]
        np.testing.assert_allclose(hidden[number], last, atol=2e-4)
        expected = output_embedding(params, config) @ last
        np.testing.assert_allclose(found[number], expected, atol=2e-3)
    plain = fuse_model(config, base, stacked=False)
    np.testing.assert_array_equal(found[0], logits(config, plain, hidden)[0])
    assert np.abs(found[1] - logits(config, plain, hidden)[1])[first] > 0.1


def test_shapes_dtypes_and_axes():
    """Ranks of parts add up, the largest of all models; also for shapes alone, as in a plan."""
    config = dataclasses.replace(QWEN2, dtype="bfloat16")
    params = random_params(QWEN2)
    shapes = jax.eval_shape(
        partial(fuse_model, config, adapters=make_adapters(config), stacked=True), params
    )
    layers = shapes.layers
    halves = {
        name: tuple(layers[name + half].shape[1:] for half in (lora.A, lora.B))
        for name in ("qkv", "out", "gate_up", "down")
    }
    assert halves == {
        "qkv": ((3, 4 + 6 + 4, 32), (3, 14, 2, 6, 8)),
        "out": ((3, 6, 64), (3, 6, 32)),
        "gate_up": ((3, 4 + 6, 32), (3, 10, 2, 48)),
        "down": ((3, 4, 48), (3, 4, 32)),
    }
    adapters = {name: array for name, array in layers.items() if lora.is_adapter(name)}
    assert {array.dtype for array in adapters.values()} == {jnp.dtype("bfloat16")}
    axes = fused_axes(config, shapes)
    assert jax.tree.map(len, axes) == jax.tree.map(lambda array: array.ndim, shapes)
    few = fuse_model(config, params, make_adapters(config, LORAS[2:]), stacked=False)
    named = [name for name in few.layers[1] if lora.is_adapter(name)]
    assert named == ["down_lora_a", "down_lora_b"]


def test_the_scale_is_in_b_and_the_adapters_of_the_config_come_first():
    own = dataclasses.replace(CONFIG, lora=LORAS[2])
    params = random_params(own)
    second = make_adapters(CONFIG, LORAS[1:2])
    fused = fuse_model(own, params, second, stacked=True)
    layers = params["layers"]
    np.testing.assert_array_equal(
        fused.layers["down_lora_a"][:, 0], np.swapaxes(layers["down_lora_a"], 1, 2)
    )
    b = fused.layers["down_lora_b"]
    np.testing.assert_array_equal(b[:, 0], layers["down_lora_b"])
    assert not np.any(b[:, 1]) and not np.any(fused.layers["out_lora_b"][:, 0])
    up = second[0].params["layers"]["up_lora_b"]
    np.testing.assert_allclose(fused.layers["gate_up_lora_b"][:, 1, :, 1], 0.5 * up)
    assert not np.any(fused.layers["gate_up_lora_b"][:, :, :, 0])


def test_each_token_of_a_sequence_is_of_the_model_of_the_sequence():
    fused = fuse_model(CONFIG, random_params(CONFIG), make_adapters(CONFIG), stacked=False)
    own = rows_of_adapters(fused, jnp.array([2, 0, 3]), 2)
    assert own.tolist() == [
        *[[False, True, False]] * 2, *[[False] * 3] * 2, *[[False, False, True]] * 2,
    ]  # fmt: skip


def test_consuming_leaves_nothing_of_the_kernels():
    own = dataclasses.replace(CONFIG, lora=LORAS[0], dtype="bfloat16")
    params = jax.tree.map(jnp.copy, random_params(own))
    fused = fuse_model(own, params, stacked=False, consume=True)
    kept = {name for name, array in params["layers"].items() if not array.is_deleted()}
    assert all(lora.is_adapter(name) for name in kept)
    assert not any(array.is_deleted() for array in jax.tree.leaves(fused))
