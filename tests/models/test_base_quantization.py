"""A frozen base in 4 or 8 bits: the format, products, gradients of adapters, loading."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm

from stair_jax.errors import UserError
from stair_jax.models import base_quantization, lora
from stair_jax.models.base_quantization import (
    AXES,
    BASE_WEIGHTS,
    NF4,
    SCALES,
    VALUES,
    BlockQuantized,
    block_size,
    quantized_shapes,
    random_scale,
    random_values,
    values_dtype,
)
from stair_jax.models.config import REMAT_POLICIES, ModelConfig
from stair_jax.models.huggingface import load_config, load_params, loading
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import apply, init_params, logical_axes, output_embedding
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning import cost
from stair_jax.planning.abstract import abstract_params
from stair_jax.training.lora_settings import LoraSettings

quantize_blockwise = jax.jit(base_quantization.quantize_blockwise, static_argnums=(0, 2))
dequantize = jax.jit(base_quantization.dequantize, static_argnums=(0, 2, 3))

KINDS = BASE_WEIGHTS[1:]
KERNELS = arrays.arrays(
    np.float32,
    (2, 128, 3),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)
PLAIN = ModelConfig(40, 128, 128, 3, 4, 2, 16, initializer_range=0.1, lora=Lora(2, 0.5))
TOKENS = np.random.default_rng(0).integers(0, 40, (4, 12))
PLACES = np.broadcast_to(np.arange(12), (4, 12))


def test_nf4_is_that_of_a_reference_in_numpy():
    kernel = np.random.default_rng(0).normal(size=(2, 128, 3)).astype(np.float32)
    kernel[0, 64:, 1] = 0
    found = quantize_blockwise("nf4", jnp.asarray(kernel), -2)
    blocks = kernel.reshape(2, 2, 64, 3)
    scales = np.abs(blocks).max(axis=2)
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(blocks / scales[:, :, None])
    codes = np.abs(shares[..., None] - np.array(NF4, np.float32)).argmin(-1).reshape(2, 128, 3)
    np.testing.assert_array_equal(found.values, codes[:, ::2] + 16 * codes[:, 1::2])
    np.testing.assert_array_equal(found.scales, np.maximum(scales, np.float32(1e-30)))
    expected = np.array(NF4, np.float32)[codes].reshape(blocks.shape) * scales[:, :, None]
    plain = dequantize("nf4", found, -2, "float32")
    np.testing.assert_array_equal(plain, expected.reshape(kernel.shape))
    assert not np.any(plain[0, 64:, 1])
    assert found.values.dtype == jnp.uint8 and found.values.shape == (2, 64, 3)


def test_the_codes_of_nf4_are_the_published_ones():
    """Quantiles of a normal distribution with eight values above zero and seven below."""
    assert len(NF4) == 16 and list(NF4) == sorted(NF4)
    assert (NF4[0], NF4[7], NF4[15]) == (-1.0, 0.0, 1.0)
    offset = 0.9677083  # as in create_normal_map of bitsandbytes
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([above, [0.0], below]))
    np.testing.assert_allclose(NF4, values / values.max(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(KERNELS)
def test_the_error_is_within_the_bound_of_the_format(kind, kernel):
    found = quantize_blockwise(kind, kernel, -2)
    restored = np.asarray(dequantize(kind, found, -2, "float32"), np.float64)
    wide = kernel.astype(np.float64).reshape(2, 2, 64, 3)
    largest = np.maximum(np.abs(wide).max(axis=2, keepdims=True), 1e-30)
    bound = {
        "nf4": largest * 0.1520,
        "int8": largest / 254,
        "fp8": np.maximum(np.abs(wide) / 16, largest * 2.0**-18.8),
    }[kind]
    error = np.abs(restored.reshape(wide.shape) - wide)
    assert np.all(error <= bound * 1.001)
    assert not restored[kernel == 0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-3, -2, -1])
def test_quantizing_what_was_quantized_changes_nothing(kind, axis):
    kernel = jax.random.normal(jax.random.key(1), (2, 96, 24, 8))
    found = quantize_blockwise(kind, kernel, axis)
    plain = dequantize(kind, found, axis, "float32")
    again = quantize_blockwise(kind, plain, axis)
    assert plain.shape == kernel.shape
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_allclose(again.scales, found.scales, rtol=1e-6)
    blocks = {-3: 96 // 32, -2: 24 // 8, -1: 1}[axis]
    assert found.scales.shape[axis] == blocks
    rounded = dequantize(kind, found, axis, "bfloat16")
    np.testing.assert_array_equal(rounded, plain.astype("bfloat16"))


def quantized(kind, config=PLAIN):
    return dataclasses.replace(config, base_weights=kind)


def quantize_params(kind, params):
    """A model with plain kernels as one with quantized ones."""
    layers = dict(params["layers"])
    for name, axis in AXES.items():
        parts = quantize_blockwise(kind, layers.pop(name), axis)
        layers |= {name + VALUES: parts.values, name + SCALES: parts.scales}
    return {**params, "layers": layers}


def dequantize_params(kind, params):
    layers = dict(params["layers"])
    for name, axis in AXES.items():
        parts = BlockQuantized(*(layers.pop(name + part) for part in (VALUES, SCALES)))
        layers[name] = dequantize(kind, parts, axis, "float32")
    return {**params, "layers": layers}


@pytest.fixture(scope="module")
def plain():
    """Parameters with plain kernels, and adapters that are not zero."""
    params = init_params(PLAIN, jax.random.key(0))
    layers = {
        name: value + 0.1 if name.endswith(lora.B) else value
        for name, value in params["layers"].items()
    }
    return {**params, "layers": layers}


@partial(jax.jit, static_argnums=0)
def loss_and_gradients(config, frozen, trained):
    def loss(trained):
        hidden = apply(config, lora.join(frozen, trained), TOKENS, PLACES)
        return jnp.mean(hidden * jnp.cos(jnp.arange(hidden.size)).reshape(hidden.shape))

    return jax.value_and_grad(loss)(trained)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_adapters_are_those_beside_the_dequantized_base(kind, plain):
    config = quantized(kind, dataclasses.replace(PLAIN, remat="full"))
    frozen, trained = lora.split(quantize_params(kind, plain))
    loss, gradients = loss_and_gradients(config, frozen, trained)
    expected_loss, expected = loss_and_gradients(PLAIN, dequantize_params(kind, frozen), trained)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), gradients, expected)
    assert all(np.any(value) for value in jax.tree.leaves(gradients))


def test_a_trained_model_predicts_alike(trained_folder):
    """Mean KL divergence of next-token distributions, in nats: 8 bits are closer than 4."""
    folder = trained_folder("pocket")
    config = load_config(folder)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (4, 32))

    @partial(jax.jit, static_argnums=0)
    def predict(config, params):
        hidden = apply(config, params, tokens, np.broadcast_to(np.arange(32), (4, 32)))
        return jax.nn.log_softmax(hidden @ output_embedding(params, config).T)

    expected = predict(config, load_params(folder, config))
    found = {}
    for kind in KINDS:
        config = quantized(kind, config)
        others = predict(config, load_params(folder, config))
        found[kind] = float(jnp.mean(jnp.sum(jnp.exp(expected) * (expected - others), -1)))
    assert 0 < found["int8"] < found["fp8"] < found["nf4"] < 0.4, found
    assert found["int8"] < 3e-3 and found["fp8"] < 0.05, found


@pytest.mark.parametrize("remat", REMAT_POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_dequantized_kernel_is_kept_for_the_backward_pass(kind, remat, capsys):
    config = dataclasses.replace(quantized(kind), remat=remat, dtype="bfloat16")
    frozen, trained = lora.split(jax.eval_shape(partial(init_params, config), jax.random.key(0)))
    frozen = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), frozen)

    def loss(trained):
        return jnp.sum(apply(config, lora.join(frozen, trained), TOKENS, PLACES))

    jax.ad_checkpoint.print_saved_residuals(loss, trained)
    saved = re.findall(r"^(\w+)\[([\d,]*)\]", capsys.readouterr().out, re.MULTILINE)
    assert saved
    sizes = [
        int(np.prod([int(n) for n in shape.split(",") if n]))
        for dtype, shape in saved
        if dtype in ("f32", "bf16", "f16") and shape.startswith(f"{PLAIN.num_hidden_layers},")
    ]
    kernels = {128 * 4 * 16, 128 * 2 * 16, 128 * 128}
    assert not {size // PLAIN.num_hidden_layers for size in sizes} & kernels


@pytest.mark.parametrize("kind", KINDS)
def test_plain_weights_of_one_layer_at_most_exist(kind):
    """A step takes as much memory besides its arguments as with a plain base, and a layer."""
    config = ModelConfig(8, 128, 256, 16, 4, 4, 32, remat="full", lora=Lora(1, 1.0))

    def temporary(config):
        shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
        program = loss_and_gradients.lower(config, *lora.split(shapes)).compile()
        return program.memory_analysis().temp_size_in_bytes

    layer = 4 * (4 * 128 * 128 + 3 * 128 * 256)
    assert temporary(quantized(kind, config)) - temporary(config) < 1.5 * layer


def test_a_sharded_base_is_that_of_one_device(plain):
    kind = "nf4"
    mesh = make_mesh(MeshShape(fsdp=2, tensor=2))
    config = fit_to_mesh(quantized(kind), mesh)
    params = quantize_params(kind, plain)
    expected = loss_and_gradients(config, *lora.split(params))
    placed = jax.device_put(params, rules.shardings(logical_axes(config), mesh))
    values = placed["layers"]["down" + VALUES]
    assert values.sharding.shard_shape(values.shape) == (3, 64 // 2, 128 // 2)
    with use_mesh(mesh):
        found = loss_and_gradients(config, *lora.split(placed))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), found, expected)


@pytest.mark.parametrize("split", [None, MeshShape(data=2, fsdp=3)])
def test_what_is_loaded_is_the_quantized_checkpoint(make_checkpoint, monkeypatch, split):
    """Also where one layer is read at a time."""
    monkeypatch.setattr(loading, "_PIECE_BYTES", 1)
    folder, _ = make_checkpoint("qwen2")
    mesh = split and make_mesh(split)
    config = load_config(folder)
    config = fit_to_mesh(config, mesh) if mesh else config
    expected = quantize_params("nf4", load_params(folder, config))
    found = load_params(folder, quantized("nf4", config), mesh)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    shapes = abstract_params(quantized("nf4", config), mesh or jax.devices()[0])
    jax.tree.map(check_like, found, shapes)


def check_like(array, shape):
    assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
    assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)


@pytest.mark.parametrize("kind", KINDS)
def test_random_kernels_have_the_deviation_of_the_config(kind):
    values = random_values(kind, jax.random.key(0), (128, 256), -2)
    shapes = quantized_shapes(kind, (128, 256), -2)
    scales = jnp.full(shapes[1], random_scale(kind, 0.02))
    kernel = dequantize(kind, BlockQuantized(values, scales), -2, "float32")
    assert values.shape == shapes[0] and values.dtype == values_dtype(kind)
    assert abs(float(jnp.std(kernel)) / 0.02 - 1) < 0.03
    assert abs(float(jnp.mean(kernel))) < 0.001


def test_bytes_are_those_that_are_stored():
    kernels = 3 * (2 * 128 * 4 * 16 + 2 * 128 * 2 * 16 + 3 * 128 * 128)
    out = 3 * 4 * 16 * 128  # in blocks of 16, the size of a head
    scales = 4 * ((kernels - out) // 64 + out // 16)
    config = dataclasses.replace(PLAIN, lora=None, dtype="bfloat16")
    place = jax.devices()[0]
    sizes = {}
    for kind in BASE_WEIGHTS:
        params = abstract_params(quantized(kind, config), place)
        sizes[kind] = cost.local_bytes(params)
        read = cost.weights_traffic(quantized(kind, config), params, head=False)
        if kind != "none":
            stored = kernels // 2 if kind == "nf4" else kernels
            assert read == stored + scales + 2 * (3 * 2 * 128 + 128)
    assert sizes["none"] - sizes["nf4"] == 4 * kernels - kernels // 2 - scales
    assert sizes["int8"] == sizes["fp8"] == sizes["nf4"] + kernels // 2


def test_blocks_that_would_lie_on_two_devices_are_refused():
    mesh = make_mesh(MeshShape(fsdp=4))
    fit_to_mesh(PLAIN, mesh)
    with pytest.raises(UserError, match=r"128 .* in blocks of 64 .* over fsdp 4 .* divisor of 2$"):
        fit_to_mesh(quantized("int8"), mesh)
    assert [block_size(size) for size in (4096, 96, 24, 10)] == [64, 32, 8, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_weights": "nf8"}, "base_weights 'nf8' is unknown"),
        ({"base_weights": "nf4", "intermediate_size": 27}, "must be even"),
    ],
)
def test_configs_that_cannot_be_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(PLAIN, **change)


def test_adapters_are_not_merged_into_a_quantized_base():
    with pytest.raises(UserError, match=r"lora\.save is 'merged'"):
        LoraSettings(rank=4, base_weights="nf4", save="merged").check()
    with pytest.raises(UserError, match=r"lora\.base_weights is set"):
        LoraSettings(base_weights="nf4").check()
