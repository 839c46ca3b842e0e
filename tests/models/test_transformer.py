"""The training model against transformers."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from transformers import AutoModelForCausalLM

from stair_jax.errors import UserError
from stair_jax.models.config import REMAT_POLICIES
from stair_jax.models.huggingface import load_config, load_params, tensor_names
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import (
    apply,
    init_params,
    logical_axes,
    narrowed,
    output_embedding,
)

TRAINED = ["pocket", "stories260K"]
LENGTHS = (96, 1, 40, 55)  # the context before rope scaling is 32


@pytest.fixture(scope="module")
def model(family):
    folder, reference = family
    config = load_config(folder)
    return config, load_params(folder, config), reference


def forward(config, *inputs):
    """Hidden states and logits, as NumPy arrays."""
    return jax.device_get(_forward(config, *inputs))


@partial(jax.jit, static_argnums=0)
def _forward(config, params, tokens, positions, segment_ids=None):
    hidden = apply(config, params, tokens, positions, segment_ids)
    head = output_embedding(params, config).astype(config.dtype)
    logits = jnp.einsum("btd,vd->btv", hidden, head, preferred_element_type=jnp.float32)
    return hidden, logits


def batch(rng, vocab_size, lengths=LENGTHS):
    """Right-padded rows, with their positions and segment ids."""
    tokens = rng.integers(0, vocab_size, (len(lengths), max(lengths)))
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return tokens, np.where(real, np.arange(max(lengths)), 0), real.astype(np.int32)


def reference_outputs(reference, tokens, real):
    with torch.no_grad():
        out = reference(
            torch.tensor(tokens), attention_mask=torch.tensor(real), output_hidden_states=True
        )
    return out.hidden_states[-1].float().numpy(), out.logits.float().numpy()


def test_padded_batch_agrees_with_transformers(model):
    config, params, reference = model
    tokens, positions, real = batch(np.random.default_rng(0), config.vocab_size)
    hidden, logits = forward(config, params, tokens, positions, real)
    expected_hidden, expected_logits = reference_outputs(reference, tokens, real)
    np.testing.assert_allclose(hidden[real > 0], expected_hidden[real > 0], atol=1e-4)
    np.testing.assert_allclose(logits[real > 0], expected_logits[real > 0], atol=1e-4)


def test_rows_longer_than_a_sliding_window_are_refused(make_checkpoint):
    folder, _ = make_checkpoint("mistral")
    config = load_config(folder)
    params = load_params(folder, config)
    tokens, positions, real = batch(np.random.default_rng(0), config.vocab_size, (97, 5))
    with pytest.raises(UserError, match="97 tokens, more than the sliding_window 96"):
        forward(config, params, tokens, positions, real)


def test_packed_segments_agree_with_rows_of_their_own(model):
    config, params, reference = model
    tokens, positions, real = batch(np.random.default_rng(1), config.vocab_size)
    _, expected = reference_outputs(reference, tokens, real)
    segments = np.arange(1, 5)[:, None] * real
    packed = np.zeros((3, 4, 96), np.int32)  # tokens, positions, segment ids; two rows of padding
    for rows, values in zip(packed, (tokens, positions, segments), strict=True):
        rows[0], rows[1] = values[0], values[1:][real[1:] > 0]
    _, logits = forward(config, params, *packed)
    np.testing.assert_allclose(logits[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(logits[1], expected[1:][real[1:] > 0], atol=1e-4)


def test_trained_checkpoint_agrees_with_transformers(trained):
    config = load_config(trained)
    params = load_params(trained, config)
    reference = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
    tokens, positions, real = batch(np.random.default_rng(2), config.vocab_size, (40, 25))
    _, logits = forward(config, params, tokens, positions, real)
    _, expected = reference_outputs(reference, tokens, real)
    np.testing.assert_allclose(logits[real > 0], expected[real > 0], atol=1e-4)


@pytest.mark.parametrize("name", ["llama3", "qwen2_tied", "qwen3_yarn", "gemma", *TRAINED])
def test_bfloat16_is_close_to_float32(name, make_checkpoint, trained_folder):
    """Mean KL(float32 || bfloat16) of next-token distributions is below 1e-3 nats.

    It is also below that of transformers in bfloat16, which rounds more often: norms, rotary
    angles and logits are float32 here.
    """
    folder = trained_folder(name) if name in TRAINED else make_checkpoint(name)[0]
    config = load_config(folder)
    params = load_params(folder, config)
    tokens, positions, real = batch(np.random.default_rng(3), config.vocab_size)
    half = dataclasses.replace(config, dtype="bfloat16")
    _, exact = forward(config, params, tokens, positions, real)
    rough_hidden, rough = forward(half, params, tokens, positions, real)
    assert rough_hidden.dtype == jnp.bfloat16
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    _, theirs = reference_outputs(reference, tokens, real)
    kl = mean_kl(exact[real > 0], rough[real > 0])
    assert 0 < kl < 1e-3 and kl < mean_kl(exact[real > 0], theirs[real > 0])


def mean_kl(exact, rough):
    p, q = (log_softmax(np.float64(logits), axis=-1) for logits in (exact, rough))
    return np.mean(np.sum(np.exp(p) * (p - q), axis=-1))


@pytest.mark.parametrize("name", ["qwen3", "mistral", "phi3", "gemma"])
def test_gradients_of_all_tensors_agree_with_transformers(name, make_checkpoint):
    folder, _ = make_checkpoint(name)
    config = load_config(folder)
    tokens, positions, _ = batch(np.random.default_rng(5), config.vocab_size, (12, 12))
    tokens[tokens == 1] = 2  # torch keeps the gradient from the padding token's row
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    reference(torch.tensor(tokens), labels=torch.tensor(tokens)).loss.backward()

    @jax.jit
    @jax.grad
    def gradient(params):
        hidden = apply(config, params, tokens, positions)[:, :-1]
        logps = jax.nn.log_softmax(hidden @ output_embedding(params, config).T)
        return -jnp.mean(jnp.take_along_axis(logps, tokens[:, 1:, None], axis=-1))

    found = jax.device_get(gradient(load_params(folder, config)))
    theirs = dict(reference.named_parameters())
    for tensor_name, tensor in tensor_names.tensors(config).items():
        expected = theirs[tensor_name].grad.numpy()
        for part in tensor.parts:
            ours = found if part.layer is None else found["layers"]
            own = ours[part.parameter] if part.layer is None else ours[part.parameter][part.layer]
            whole = tuple(slice(0, size) for size in part.shape)
            np.testing.assert_allclose(
                tensor_names.stored_view(own, part, whole),
                expected[part.first_row : part.first_row + part.shape[0]],
                atol=1e-5,
                err_msg=f"{tensor_name}: {part.parameter}",
            )
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found)) > 0.01


def test_remat_changes_no_gradient(tiny):
    config, params = tiny
    tokens, positions, real = batch(np.random.default_rng(4), 32, (5, 3))

    @partial(jax.jit, static_argnums=1)
    @jax.grad
    def gradient(embedding, remat):
        changed = dataclasses.replace(config, remat=remat)
        hidden = apply(changed, params | {"embedding": embedding}, tokens, positions, real)
        return jnp.sum(jnp.sin(hidden) * real[..., None])

    none = gradient(params["embedding"], "none")
    assert np.abs(none).max() > 0.01
    for name in REMAT_POLICIES[1:]:
        again = gradient(params["embedding"], name)
        np.testing.assert_allclose(again, none, rtol=1e-4, atol=1e-5, err_msg=name)
    programs = [
        str(jax.make_jaxpr(lambda e, n=n: gradient(e, n))(params["embedding"]))
        for n in REMAT_POLICIES
    ]
    assert ["remat" in program for program in programs] == [False, *(True,) * 5]


@pytest.mark.parametrize("unroll", [False, True])
def test_narrowed_kernels_get_the_gradient_that_casts_in_the_loop_give_them(tiny, unroll):
    config, params = tiny
    tokens, positions, real = batch(np.random.default_rng(4), 32, (5, 3))
    config = dataclasses.replace(config, dtype="bfloat16", remat="full", unroll=unroll)

    @partial(jax.jit, static_argnums=1)
    @jax.grad
    def gradient(params, cast):
        given = narrowed(config, params) if cast else params
        hidden = apply(config, given, tokens, positions, real)
        return jnp.sum(jnp.sin(hidden.astype(jnp.float32)) * real[..., None])

    found, expected = (gradient(params, cast)["layers"] for cast in (True, False))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    for name, leaf in expected.items():
        assert np.abs(leaf).max() > 0, name
        np.testing.assert_allclose(found[name], leaf, rtol=0.02, atol=0.02, err_msg=name)


def test_frozen_and_wide_kernels_are_not_narrowed(tiny):
    config, params = tiny
    frozen = dataclasses.replace(config, dtype="bfloat16", lora=Lora(2, 1.0))
    assert narrowed(frozen, params) is params
    same = narrowed(config, params)["layers"]
    assert all(same[name] is leaf for name, leaf in params["layers"].items())


@pytest.mark.parametrize("tied", [False, True])
def test_each_dimension_of_a_parameter_has_a_logical_axis_name(tiny, tied):
    config = dataclasses.replace(tiny[0], tie_word_embeddings=tied, param_dtype="bfloat16")
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    axes = logical_axes(config)
    assert jax.tree.map(lambda shape: shape.ndim, shapes) == jax.tree.map(len, axes)
    assert {shape.dtype for shape in jax.tree.leaves(shapes)} == {jnp.dtype("bfloat16")}
    assert ("head" in shapes) is not tied
    assert axes["layers"]["query"] == jax.P("layers", "embed", "heads", "head_dim")


def test_axes_of_biases_and_norms_and_of_kv_heads_that_are_not_split(tiny):
    def axes(**changes):
        return logical_axes(dataclasses.replace(tiny[0], **changes))["layers"]

    qwen2 = axes(model_type="qwen2")
    assert qwen2["query_bias"] == jax.P("layers", "heads", "head_dim")
    assert qwen2["key_bias"] == qwen2["value_bias"] == jax.P("layers", "kv_heads", "head_dim")
    whole = axes(model_type="qwen2", shard_kv_heads=False)
    assert whole["key_bias"] == jax.P("layers", "kv_heads_whole", "head_dim")
    assert whole["value"] == jax.P("layers", "embed", "kv_heads_whole", "head_dim")
    qwen3 = axes(model_type="qwen3")
    assert qwen3["query_norm"] == qwen3["key_norm"] == jax.P("layers", "head_dim")
    assert set(qwen2) - set(qwen3) == {"query_bias", "key_bias", "value_bias"}
    assert set(qwen3) - set(qwen2) == {"query_norm", "key_norm"}


def test_init_draws_plain_arrays_that_differ_from_layer_to_layer(tiny):
    config, params = tiny
    assert all(isinstance(value, jax.Array) for value in jax.tree.leaves(params))
    query = np.asarray(params["layers"]["query"])
    assert abs(query.std() / config.initializer_range - 1) < 0.1
    assert not np.array_equal(query[0], query[1])
    np.testing.assert_array_equal(params["layers"]["mlp_norm"], np.ones((2, 32)))


def test_unknown_backend_is_named(tiny):
    config = dataclasses.replace(tiny[0], attention="flush")
    with pytest.raises(UserError, match=r"'flush'.*xla"):
        init_params(config, jax.random.key(0))
