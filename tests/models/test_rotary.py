"""Rotary embedding and its scalings against transformers."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.models.rope_fields import read_rope
from stair_jax.models.rotary import RopeScaling, rotary_embedding, rotate, stretch

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
OWN = 0.1 * math.log(4.0) + 1


def read(scaling, **others):
    return read_rope({"max_position_embeddings": 2048, "rope_scaling": scaling} | others).scaling


def reference(head_dim, theta, scaling):
    """Frequencies and attention factor of transformers."""
    rope = scaling.to_huggingface() | {"rope_theta": theta}
    config = LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        max_position_embeddings=rope["original_max_position_embeddings"] * 2,
        rope_parameters=rope,
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[scaling.kind](config)
    return frequencies.numpy(), factor


def assert_equal_to_transformers(head_dim, theta, scaling):
    # At position 1 the angle is the frequency; it can be read if there is no attention factor.
    bare = dataclasses.replace(scaling, attention_factor=1.0)
    cos, sin = (x[0, 0, 0] for x in rotary_embedding(jnp.array([[1]]), head_dim, theta, bare))
    frequencies, factor = reference(head_dim, theta, scaling)
    # Next to its bounds the interpolation of torch, in float32, loses a digit.
    np.testing.assert_allclose(np.arctan2(sin, cos), frequencies, rtol=3e-6)
    full = rotary_embedding(jnp.array([[1]]), head_dim, theta, scaling)
    lengths = np.hypot(*(x[0, 0, 0] for x in full))
    np.testing.assert_allclose(lengths, factor, rtol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, model in KNOWN.items() if model.config.get("rope_scaling")]
)
def test_frequencies_of_public_models_are_those_of_transformers(name):
    config = ModelConfig.from_huggingface(KNOWN[name].config)
    assert config.rope_scaling is not None
    assert_equal_to_transformers(config.head_dim, config.rope_theta, config.rope_scaling)
    divided = stretch(config.head_dim, config.rope_theta, config.rope_scaling)
    assert divided[0] == 1 and divided[-1] == config.rope_scaling.factor


@given(
    half=st.sampled_from([2, 5, 32, 40]),
    theta=st.floats(100.0, 1e6),
    length=st.integers(16, 100_000),
    factor=st.floats(1.0, 64.0),
    low=st.floats(0.5, 4.0),
    width=st.floats(0.5, 8.0),
    kind=st.sampled_from(["llama3", "yarn"]),
)
def test_frequencies_are_those_of_transformers(half, theta, length, factor, low, width, kind):
    if kind == "llama3":
        scaling = RopeScaling(
            kind, factor, length, low_freq_factor=low, high_freq_factor=low + width
        )
    else:
        scaling = RopeScaling(kind, factor, length, beta_fast=low + 8 * width, beta_slow=low)
    # 1 / float32(a) and float32(1 / a) differ by rounding, in torch as well.
    assert_equal_to_transformers(2 * half, theta, scaling)


def test_without_scaling_the_frequencies_are_powers_of_theta():
    cos, sin = rotary_embedding(jnp.array([[0, 3]]), 4, 100.0)
    np.testing.assert_allclose(cos[0, :, 0], [[1, 1], [math.cos(3), math.cos(0.3)]], rtol=1e-6)
    np.testing.assert_allclose(sin[0, :, 0], [[0, 0], [math.sin(3), math.sin(0.3)]], rtol=1e-6)


def test_products_of_rotated_vectors_depend_on_the_distance_only():
    rng = np.random.default_rng(0)
    query, key = (jnp.array(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def product(first, second):
        positions = (jnp.array([[p]]) for p in (first, second))
        scaling = RopeScaling("llama3", 8.0, 32)
        a, b = (
            rotate(x, rotary_embedding(p, 8, 50.0, scaling))
            for x, p in zip((query, key), positions, strict=True)
        )
        return float(jnp.sum(a * b))

    assert product(3, 10) == pytest.approx(product(40, 47), rel=1e-4)
    assert product(3, 10) != pytest.approx(product(3, 11), rel=1e-2)


def test_both_spellings_of_transformers_are_read():
    expected = RopeScaling("llama3", 8.0, 8192)
    assert read(LLAMA3) == expected
    rope = LLAMA3 | {"rope_theta": 5e5}
    assert read(None, rope_parameters=rope) == expected
    assert read({"type": "yarn", "factor": 4.0}, max_position_embeddings=32768) == read(YARN)
    assert read(None) is None and read({"rope_type": "default"}) is None


def test_yarn_has_the_attention_factor_of_its_authors_unless_it_is_given():
    assert read(YARN).attention_factor == pytest.approx(OWN)
    assert read(YARN | {"attention_factor": 0.5}).attention_factor == 0.5
    assert read(YARN | {"attn_factor": 0.5}).attention_factor == pytest.approx(0.5 * OWN)
    # The published value cancels YaRN's own factor.
    public = KNOWN["deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"].config["rope_scaling"]
    assert read(public).attention_factor == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("factors", [{}, {"attention_factor": 0.5}, {"attn_factor": 0.5}])
def test_what_is_written_means_the_same_to_transformers_and_to_vllm(factors):
    scaling = read(YARN | {"beta_fast": 16.0} | factors)
    written = scaling.to_huggingface()
    again = read(written)
    assert again == dataclasses.replace(scaling, attention_factor=again.attention_factor)
    assert again.attention_factor == pytest.approx(scaling.attention_factor)
    assert reference(16, 1e6, scaling)[1] == pytest.approx(scaling.attention_factor)
    # vLLM reads attn_factor only, and multiplies.
    assert written.get("attn_factor", 1.0) * OWN == pytest.approx(scaling.attention_factor)
    assert read(read(LLAMA3).to_huggingface()) == read(LLAMA3)


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "'dynamic'"),
        ({"type": "linear", "factor": 2.0}, "'linear'"),
        ({"rope_type": "longrope", "long_factor": [1.0]}, "'longrope'"),
        (YARN | {"mscale": 1.0}, "mscale"),
        (YARN | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (YARN | {"factor": "4"}, "factor"),
        (YARN | {"factor": 0.5}, "factor 0.5"),
        (YARN | {"factor": None}, "lacks factor"),
        (YARN | {"beta_fast": 0.5}, "beta_slow"),
        (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks high_freq_factor"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "low_freq_factor"),
        (["yarn"], "object"),
    ],
)
def test_what_is_not_supported_is_named(scaling, named):
    with pytest.raises(UserError, match=named):
        read(scaling)


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="'linear'"):
        RopeScaling("linear", 2.0, 32)
