"""The forward pass for serving against that of training, plain, quantized and on meshes."""

import dataclasses
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import SingleDeviceSharding
from scipy.special import log_softmax

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import load_config, load_params
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.paged.backends import View, get_paged_backend, page_axes
from stair_jax.models.quantization import Quantized
from stair_jax.models.serving.fused_params import FusedParams, fuse_params, fused_axes
from stair_jax.models.serving.paged_forward import forward, logits
from stair_jax.models.transformer import apply, init_params, logical_axes, output_embedding
from stair_jax.parallel.mesh import MeshShape, batch_devices, make_mesh
from stair_jax.parallel.placement import Placement
from stair_jax.parallel.rules import shardings
from stair_jax.planning.topology import get_topology

APART = get_paged_backend("gather")
STACKED = APART._replace(stacked=True)
PAGE_SIZE = 4
# Heads and MLP can be split in two and in four, KV heads in two only.
CONFIG = ModelConfig(61, 32, 48, 2, 8, 2, 8, initializer_range=0.3)


@partial(jax.jit, static_argnums=(0, 2))
def step(config, fused, backend, tokens, pages, view):
    hidden, pages = forward(config, fused, backend, tokens, pages, view)
    flat = logits(config, fused, hidden.reshape(-1, hidden.shape[-1]))
    return flat.reshape(*tokens.shape, -1), pages


def empty_pages(config, backend, num_pages):
    def empty(layers):
        made = APART.empty(config, num_pages * layers, PAGE_SIZE, 1, config.dtype)
        axes = page_axes(config, made)
        mesh = jax.sharding.get_mesh()
        return made if mesh.empty else jax.device_put(made, shardings(axes, mesh))

    count = config.num_hidden_layers
    return empty(count) if backend.stacked else tuple(empty(1) for _ in range(count))


def feed(config, fused, tokens, backend=APART, mesh=None, single=0):
    """Logits [B, T, V] of sequences on randomly chosen pages.

    They are fed in chunks of different lengths, the last `single` tokens one by one.
    """
    rng = np.random.default_rng(7)
    rows, length = tokens.shape
    shards = 1 if mesh is None else batch_devices(mesh)
    width, local = -(-length // PAGE_SIZE), rows // shards
    table = np.concatenate(
        [1 + rng.permutation(local * width).reshape(local, width) for _ in range(shards)]
    ).astype(np.int32)
    found = np.zeros((rows, length, config.padded_vocab_size))
    start = np.zeros(rows, np.int32)
    place = Placement(mesh)
    with place.use():
        pages = empty_pages(config, backend, shards * (1 + local * width))
        while start.min() < length:
            is_chunk = start.min() < length - single
            end = length - single if is_chunk else length
            most = 8 if is_chunk else 1
            lengths = np.minimum(rng.integers(0, most + 1, rows), end - start).astype(np.int32)
            new = np.zeros((rows, most), np.int32)
            for row, (first, count) in enumerate(zip(start, lengths, strict=True)):
                new[row, :count] = tokens[row, first : first + count]
            view = View(*place.rows((table, start.copy(), lengths)))
            some, pages = step(config, fused, backend, place.rows(new), pages, view)
            some = np.asarray(some)
            for row, (first, count) in enumerate(zip(start, lengths, strict=True)):
                found[row, first : first + count] = some[row, :count]
            start += lengths
    return found


@partial(jax.jit, static_argnums=0)
def whole(config, params, tokens):
    """Logits of whole sequences by the training model."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = apply(config, params, tokens, positions)
    return jnp.einsum("btd,vd->btv", hidden, output_embedding(params, config))


def some_tokens(vocab_size, rows=4, length=41):
    return np.random.default_rng(0).integers(0, vocab_size, (rows, length)).astype(np.int32)


@pytest.mark.parametrize("name", ["llama3_tied", "qwen2", "qwen3_yarn", "mistral", "phi3", "gemma"])
def test_chunks_and_single_tokens_agree_with_transformers(name, make_checkpoint):
    folder, reference = make_checkpoint(name)
    config = load_config(folder)
    params = load_params(folder, config)
    tokens = some_tokens(config.vocab_size)
    with torch.no_grad():
        expected = reference(torch.tensor(tokens)).logits.numpy()
    found = feed(config, fuse_params(config, params, stacked=True), tokens, STACKED, single=6)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("name", "weights"), [("qwen2", "none"), ("qwen3_yarn", "int8")])
def test_stacked_layers_and_kv_heads_apart_give_the_same(name, weights, make_checkpoint):
    folder, _ = make_checkpoint(name)
    config = load_config(folder)
    params = load_params(folder, config)
    tokens = some_tokens(config.vocab_size, length=20)
    expected = feed(config, fuse_params(config, params, weights=weights, stacked=False), tokens)
    stacked = fuse_params(config, params, weights=weights, stacked=True)
    np.testing.assert_allclose(feed(config, stacked, tokens, STACKED), expected, atol=2e-5)
    config = dataclasses.replace(config, shard_kv_heads=False)
    apart = fuse_params(config, params, weights=weights, stacked=True)
    assert ("qkv" in apart.layers, "key_value" in apart.layers) == (False, True)
    np.testing.assert_allclose(feed(config, apart, tokens, STACKED), expected, atol=2e-5)
    if weights == "none":
        np.testing.assert_allclose(whole(config, params, tokens), expected, atol=1e-4)


MESHES = {"data 8": (8, 1, 1), "all": (2, 2, 2), "tensor 4": (2, 1, 4)}


@cache
def random_params(config):
    """Parameters of similar scale, norms and biases too; Linen's own init compiles slowly."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), a.dtype), shapes)


def on_mesh(shape, config=CONFIG):
    mesh = make_mesh(MeshShape(*shape))
    config = fit_to_mesh(config, mesh, vocab_multiple=8)
    # The parameters of the config without a mesh, with padding rows.
    params = dict(random_params(dataclasses.replace(config, vocab_multiple=1, shard_kv_heads=True)))
    for name in ("embedding", "head"):
        params[name] = jnp.pad(params[name], ((0, 3), (0, 0)))
    return mesh, config, jax.device_put(params, shardings(logical_axes(config), mesh))


@pytest.fixture(scope="module")
def one_device():
    params = random_params(CONFIG)
    tokens = some_tokens(CONFIG.vocab_size, rows=8, length=20)
    return tokens, {
        weights: feed(
            CONFIG, fuse_params(CONFIG, params, weights=weights, stacked=True), tokens, STACKED
        )
        for weights in ("none", "int8")
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("all", "apart"),
        ("data 8", "stacked"),
        ("tensor 4", "stacked"),
        ("all", "int8"),
    ],
)
def test_a_mesh_gives_the_logits_of_one_device(name, kind, one_device):
    tokens, expected = one_device
    weights = "int8" if kind == "int8" else "none"
    backend = APART if kind == "apart" else STACKED
    mesh, config, params = on_mesh(MESHES[name])
    assert config.shard_kv_heads is (name != "tensor 4")
    fused = fuse_params(config, params, weights=weights, stacked=backend.stacked)
    for array, sharding in zip(
        jax.tree.leaves(fused),
        jax.tree.leaves(shardings(fused_axes(config, fused), mesh)),
        strict=True,
    ):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    found = feed(config, fused, tokens, backend, mesh)
    assert np.all(found[..., 61:] == -np.inf)
    error = np.abs(found[..., :61] - expected[weights])
    if weights == "none":
        assert error.max() < 2e-4
    else:
        # Values halfway between two integers may be rounded either way.
        assert error.mean() < 1e-3 and error.max() < 0.2


def test_tensor_parallel_decoding_moves_activations_only(optimised):
    mesh, config, params = on_mesh((1, 1, 2), WIDE)
    text = decode_step(config, fuse_params(config, params, stacked=False), APART, mesh).as_text()
    moved = re.findall(
        r"= \(?\w+\[([\d,]+)\]\S* (?:all-gather|all-reduce|all-to-all|collective-permute)\(", text
    )
    assert moved
    assert max(np.prod([int(size) for size in shape.split(",")]) for shape in moved) <= 8 * 256


WIDE = dataclasses.replace(
    CONFIG, model_type="qwen2", hidden_size=256, intermediate_size=512, num_hidden_layers=1
)


def decode_step(config, fused, backend, mesh=None):
    """The compiled program for one token in each of 8 rows, as in an engine's loop."""
    place = Placement(mesh)
    with place.use():
        pages = empty_pages(config, backend, 25)
        rows = np.zeros(8, np.int32)
        view = View(*place.rows((np.zeros((8, 3), np.int32), rows, rows)))
        program = jax.jit(partial(forward, config), static_argnums=1, donate_argnums=3)
        return program.lower(fused, backend, place.rows(rows[:, None]), pages, view).compile()


@pytest.mark.parametrize("weights", ["none", "int8"])
def test_a_decode_step_neither_copies_nor_transposes_kernels(weights, optimised):
    fused = fuse_params(WIDE, random_params(WIDE), weights=weights, stacked=False)
    compiled = decode_step(WIDE, fused, APART)
    for shape in re.findall(
        r"= \w+\[([\d,]+)\]\S* (?:copy|transpose|convert|dynamic-slice)\(", compiled.as_text()
    ):
        assert np.prod([int(size) for size in shape.split(",")]) < 256 * 64, shape


@pytest.mark.parametrize("stacked", [False, True])
def test_consuming_deletes_each_parameter_that_was_converted(stacked):
    """Each layer gets arrays of its own as well."""
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params = jax.tree.map(jnp.copy, random_params(CONFIG))
    kept = fuse_params(config, params, stacked=stacked)
    assert not any(array.is_deleted() for array in jax.tree.leaves(params))
    used = fuse_params(config, params, stacked=stacked, consume=True)
    assert not params.pop("final_norm").is_deleted()
    assert all(array.is_deleted() for array in jax.tree.leaves(params))
    leaves = jax.tree.leaves(used)
    assert len({array.unsafe_buffer_pointer() for array in leaves}) == len(leaves)
    jax.tree.map(np.testing.assert_array_equal, used, kept)


def test_what_needs_no_change_is_shared():
    params = jax.tree.map(jnp.copy, random_params(CONFIG))
    fused = fuse_params(CONFIG, params, stacked=False, consume=True)
    assert fused.embedding is params["embedding"] and fused.head is params["head"]
    assert not fused.embedding.is_deleted()


@pytest.mark.parametrize(
    ("weights", "stacked"), [("none", False), ("none", True), ("fp8", False), ("int8", True)]
)
def test_dtypes_shapes_and_axes(weights, stacked):
    """Also for shapes alone, as a plan needs them."""
    config = dataclasses.replace(CONFIG, model_type="qwen2", dtype="bfloat16")
    make = partial(fuse_params, config, weights=weights, stacked=stacked)
    params = random_params(dataclasses.replace(config, dtype="float32"))
    fused, shapes = make(params), jax.eval_shape(make, params)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), fused) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )
    axes = fused_axes(config, shapes)
    assert jax.tree.map(lambda a: a.ndim, fused) == jax.tree.map(len, axes)
    layer = jax.tree.map(lambda a: a[0], fused.layers) if stacked else fused.layers[0]
    kernels = {name: layer.pop(name) for name in ("qkv", "out", "gate_up", "down")}
    shapes = {"qkv": (2, 6, 8, 32), "out": (32, 64), "gate_up": (2, 48, 32), "down": (32, 48)}
    for name, kernel in kernels.items():
        if weights == "none":
            assert (kernel.shape, kernel.dtype) == (shapes[name], jnp.bfloat16)
        else:
            assert isinstance(kernel, Quantized)
            dtype = {"fp8": "float8_e4m3fn", "int8": "int8"}[weights]
            assert (kernel.values.shape, kernel.values.dtype) == (shapes[name], dtype)
            assert (kernel.scale.shape, kernel.scale.dtype) == (shapes[name][:-1], jnp.float32)
    assert {name: array.dtype for name, array in layer.items()} == {
        "attention_norm": jnp.float32,
        "mlp_norm": jnp.float32,
        "qkv_bias": jnp.bfloat16,
    }
    assert (fused.embedding.dtype, fused.final_norm.dtype) == (jnp.bfloat16, jnp.float32)


def test_fused_kernels_hold_the_groups_of_each_kv_head():
    params = random_params(CONFIG)
    layers = params["layers"]
    fused = fuse_params(CONFIG, params, stacked=False).layers[1]
    for head in range(2):
        joint = fused["qkv"][head]
        for index in range(4):
            np.testing.assert_array_equal(joint[index].T, layers["query"][1, :, 4 * head + index])
        np.testing.assert_array_equal(joint[4].T, layers["key"][1, :, head])
        np.testing.assert_array_equal(joint[5].T, layers["value"][1, :, head])
    np.testing.assert_array_equal(fused["gate_up"][0].T, layers["gate"][1])
    np.testing.assert_array_equal(fused["gate_up"][1].T, layers["up"][1])


@pytest.mark.parametrize(
    ("name", "weights", "bound"), [("pocket", "int8", 0.02), ("stories260K", "fp8", 0.06)]
)
def test_quantized_models_are_close(name, weights, bound, trained_folder):
    """Mean KL(float32 || quantized) of next-token distributions, in nats."""
    folder = trained_folder(name)
    config = load_config(folder)
    params = load_params(folder, config)
    tokens = some_tokens(config.vocab_size, rows=8, length=30)
    exact = log_softmax(np.float64(whole(config, params, tokens)), axis=-1)
    rough = fuse_params(config, params, weights=weights, stacked=True)
    found = log_softmax(feed(config, rough, tokens, STACKED), axis=-1)
    kl = np.mean(np.sum(np.exp(exact) * (exact - found), axis=-1))
    assert 0 < kl < bound


def test_unknown_weights_are_named():
    with pytest.raises(UserError, match=r"'int4'.*none, fp8, int8"):
        fuse_params(CONFIG, random_params(CONFIG), weights="int4", stacked=False)


def test_a_tied_head_is_not_there_twice():
    config = dataclasses.replace(CONFIG, tie_word_embeddings=True)
    params = {name: array for name, array in random_params(CONFIG).items() if name != "head"}
    fused = fuse_params(config, params, stacked=True)
    assert isinstance(fused, FusedParams) and fused.head is None
    assert logits(config, fused, jnp.ones((2, 32))).shape == (2, 61)


@pytest.mark.parametrize("weights", ["none", "int8"])
def test_on_tpus_a_decode_step_reads_kernels_where_they_lie(weights, optimised):
    """Its temporaries are smaller than one kernel, so no kernel is copied."""
    pytest.importorskip("libtpu")
    config = dataclasses.replace(
        CONFIG, hidden_size=4096, intermediate_size=8192, head_dim=128, dtype="bfloat16"
    )
    device = SingleDeviceSharding(get_topology("v5p:2x2x1").devices[0])
    backend = STACKED._replace(attend=lambda query, key, value, pages, view: (query, pages))
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    fused = jax.eval_shape(partial(fuse_params, config, weights=weights, stacked=True), shapes)
    rows = jax.ShapeDtypeStruct((64,), jnp.int32)
    tokens = jax.ShapeDtypeStruct((64, 1), jnp.int32)
    pages = jax.ShapeDtypeStruct((config.num_hidden_layers,), jnp.int32)
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device),
        (fused, tokens, pages, View(tokens, rows, rows, rows)),
    )

    @jax.jit
    def program(fused, tokens, pages, view):
        return forward(config, fused, backend, tokens, pages, view)

    memory = program.lower(*arguments).compile().memory_analysis()
    kernel = jax.tree.leaves(fused.layers["down"])[0]
    assert memory.argument_size_in_bytes > 2 * kernel.size
    assert memory.temp_size_in_bytes < kernel.size * kernel.dtype.itemsize / 4
