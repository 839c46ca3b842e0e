"""Base and scaling of the rotary embedding as transformers reads them from a `config.json`."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.rope_fields import read_rope
from stair_jax.models.rotary import RopeScaling, rotary_embedding

SIZES = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def ours(model_type, rope):
    """Frequencies [head_dim / 2] and attention factor of this package."""
    config = ModelConfig.from_huggingface({"model_type": model_type} | SIZES | rope)
    angles = rotary_embedding(jnp.array([[1]]), 16, config.rope_theta, config.rope_scaling)
    cos, sin = (np.asarray(x[0, 0, 0]) for x in angles)
    return np.arctan2(sin, cos), np.hypot(cos, sin)


def theirs(model_type, rope, layer_type=None):
    """The same of transformers."""
    config = AutoConfig.for_model(model_type, **SIZES, **rope)
    table = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    if table["rope_type"] == "default":
        return table["rope_theta"] ** -(np.arange(0, 16, 2) / 16), 1.0
    make = ROPE_INIT_FUNCTIONS[table["rope_type"]]
    frequencies, factor = make(config, layer_type=layer_type) if layer_type else make(config)
    return frequencies.numpy(), factor


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 777},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
        {"rope_scaling": YARN, "rope_theta": 777.0},
        {"rope_scaling": YARN | {"rope_theta": 777.0}},
        {"rope_scaling": YARN | {"rope_theta": 777.0}, "rope_theta": 5e5},
        {"rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 9.0}},
        {"rope_parameters": LLAMA3 | {"rope_theta": 777.0}},
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        {"rope_scaling": YARN | {"truncate": True, "attention_factor": 1.2}},
    ],
    ids=str,
)
def test_frequencies_are_those_of_transformers_for_each_spelling(model_type, rope):
    frequencies, factor = ours(model_type, rope)
    expected, expected_factor = theirs(model_type, rope)
    np.testing.assert_allclose(frequencies, expected, rtol=1e-5)
    np.testing.assert_allclose(factor, expected_factor, rtol=1e-6)


@pytest.mark.parametrize("part", [YARN, LLAMA3, {"rope_type": "default"}], ids=str)
def test_of_tables_by_types_of_layers_that_of_full_attention_counts(part):
    rope = {
        "layer_types": ["full_attention"] * 2,
        "rope_parameters": {
            "full_attention": part | {"rope_theta": 777.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        },
    }
    frequencies, factor = ours("qwen3", rope)
    expected, expected_factor = theirs("qwen3", rope, "full_attention")
    np.testing.assert_allclose(frequencies, expected, rtol=1e-5)
    np.testing.assert_allclose(factor, expected_factor, rtol=1e-6)


def test_two_tables_that_agree_are_one():
    table = YARN | {"rope_theta": 777.0}
    read = read_rope({"rope_scaling": YARN, "rope_theta": 777.0, "rope_parameters": table})
    assert read.theta == 777.0 and isinstance(read.scaling, RopeScaling)


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_theta": "500000"}, "rope_theta .* not '500000'"),
        ({"rope_theta": math.nan}, "rope_theta .* not nan"),
        ({"rope_theta": 0}, "rope_theta .* above 1"),
        ({"rope_theta": 1e308}, "rope_theta"),
        ({"rope_theta": True}, "rope_theta"),
        ({"rope_scaling": 0}, "rope_scaling .* an object, not 0"),
        ({"rope_scaling": YARN | {"factor": "4"}}, "factor in rope_scaling .* not '4'"),
        ({"rope_scaling": YARN | {"factor": math.inf}}, "factor .* not inf"),
        ({"rope_scaling": YARN | {"beta_fast": -1}}, "beta_fast .* above 0"),
        (
            {"rope_scaling": YARN | {"original_max_position_embeddings": "64"}},
            "original_max_position_embeddings in rope_scaling .* not '64'",
        ),
        ({"rope_scaling": YARN | {"truncate": False}}, "truncate False in rope_scaling"),
        ({"rope_scaling": YARN | {"mscale": 1.0}}, r"mscale 1\.0 in rope_scaling"),
        ({"rope_scaling": YARN | {"type": "linear"}}, "rope_type 'yarn', but type 'linear'"),
        ({"rope_scaling": {"rope_type": ["a"]}}, r"rope_scaling of type \['a'\]"),
        (
            {"rope_scaling": {"type": "default", "mrope_section": [1, 2]}},
            r"mrope_section \[1, 2\] in rope_scaling",
        ),
        (
            {"rope_scaling": YARN, "rope_parameters": {"rope_type": "default"}},
            "rope_scaling and rope_parameters .* contradict",
        ),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 100},
            "original_max_position_embeddings 100 .* 64",
        ),
        ({"rope_parameters": {"sliding_attention": YARN}}, "no table for full_attention"),
        ({"rope_parameters": {"full_attention": None}}, "no table for full_attention"),
        (
            {"rope_parameters": {"full_attention": YARN, "rope_theta": 3.0}},
            r"rope_theta 3\.0 .* beside tables by type",
        ),
        (
            {"rope_parameters": {"full_attention": YARN | {"factor": None}}},
            "rope_parameters of type 'yarn' .* lacks factor",
        ),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named_with_its_value(rope, named):
    with pytest.raises(UserError, match=named) as caught:
        read_rope(SIZES | rope)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "rope", [{"rope_theta": 777.0}, {"rope_scaling": YARN | {"rope_theta": 7}}]
)
def test_the_written_config_says_what_was_computed(rope):
    config = ModelConfig.from_huggingface({"model_type": "llama"} | SIZES | rope)
    written = config.to_huggingface()
    assert read_rope(written) == (config.rope_theta, config.rope_scaling)
    assert ModelConfig.from_huggingface(written) == config
    np.testing.assert_allclose(
        theirs("llama", {"rope_parameters": written["rope_parameters"]})[0],
        ours("llama", rope)[0],
        rtol=1e-5,
    )
