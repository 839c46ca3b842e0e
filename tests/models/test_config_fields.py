"""Every field of a `config.json` is read, known to be neutral, or refused by its name."""

import json
import math

import pytest
import torch
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.generation import GenerationConfig

from stair_jax.errors import UserError
from stair_jax.models.config import MODEL_TYPES, ModelConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PLAIN = ModelConfig.from_huggingface(LLAMA)
# As published with HuggingFaceTB/SmolLM2-135M-Instruct, with the sizes of `LLAMA`.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.041666666666666664,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
}


def read(**changes):
    return ModelConfig.from_huggingface(LLAMA | changes)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_all_fields_that_transformers_writes_are_known(model_type):
    theirs = AutoConfig.for_model(**LLAMA | {"model_type": model_type, "head_dim": 6})
    config = ModelConfig.from_huggingface(theirs.to_dict())
    assert (config.hidden_size, config.head_dim) == (24, 6)
    assert ModelConfig.from_huggingface(json.loads(theirs.to_json_string())) == config


def test_settings_of_sampling_change_nothing():
    sampling = GenerationConfig._get_default_generation_params()
    assert {"temperature", "top_p", "max_length"} <= set(sampling)
    assert read(**sampling) == PLAIN


def test_fields_of_a_public_model_are_known():
    config = read(**SMOLLM2)
    assert (config.rope_theta, config.rms_norm_eps) == (1e5, 1e-5)
    assert config.tie_word_embeddings and config.max_position_embeddings == 8192


@pytest.mark.parametrize(
    "neutral",
    [
        {"eos_token_id": [1, 2]},
        {"image_token_id": 7},
        {"odd_field": None},
        {"is_causal": True},
        {"hidden_act": "swish"},
        {"hidden_activation": "silu", "hidden_act": None},
        {"attention_dropout": 0},
        {"layer_types": ["full_attention", "full_attention"]},
        {"use_sliding_window": False, "sliding_window": 16},
    ],
    ids=str,
)
def test_neutral_fields_change_nothing(neutral):
    assert read(**neutral) == PLAIN


def test_both_names_of_the_activation_are_one_function_in_transformers():
    inputs = torch.linspace(-6, 6, 25)
    assert torch.equal(ACT2FN["silu"](inputs), ACT2FN["swish"](inputs))


# As published with microsoft/Phi-3-mini-4k-instruct, with the sizes of `LLAMA`.
PHI3_MINI = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "embd_pdrop": 0.0,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "attention_bias": False,
}
LONGROPE = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


def test_fields_of_phi3_are_known():
    config = read(**PHI3_MINI)
    assert (config.model_type, config.sliding_window, config.context_tokens) == ("phi3", 2047, 2047)
    assert config.rms_norm_eps == read(model_type="phi3").rms_norm_eps


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_activation": "gelu_pytorch_tanh"},
        {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
    ],
)
def test_the_names_of_gemmas_activation_are_one_function(names):
    assert read(model_type="gemma", **names) == read(model_type="gemma")


@pytest.mark.parametrize(
    "names",
    [
        {"hidden_act": "gelu"},  # transformers 4 took it for the other one
        {"hidden_act": "silu"},
        {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu"},
        {"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"},
        {"use_bidirectional_attention": True},
    ],
)
def test_what_gemma_has_and_is_not_computed_is_named(names):
    with pytest.raises(UserError, match=r"hidden_act|use_bidirectional_attention"):
        read(model_type="gemma", **names)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": LONGROPE}, "'longrope' .* a factor for each frequency"),
        ({"rope_scaling": LONGROPE | {"type": "su"}}, "'su' .* Phi-3's scaling"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn' .* Phi-3's scaling"),
        ({"partial_rotary_factor": 0.75}, r"partial_rotary_factor 0\.75 .* must be 1\.0"),
        ({"auto_map": {"AutoConfig": "own.Config"}}, "never run"),
        ({"resid_pdrop": 0.1}, r"resid_pdrop 0\.1"),
    ],
    ids=str,
)
def test_what_phi3_has_and_is_not_computed_is_named(changes, named):
    with pytest.raises(UserError, match=named) as caught:
        read(**PHI3_MINI | changes)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"odd_field": 3}, "odd_field 3 .* is not known: remove"),
        ({"text_config": {"hidden_size": 3}}, "text_config"),
        ({"is_causal": False}, "is_causal False .* must be True"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new' .*'silu' or 'swish'"),
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ({"attention_dropout": 0.1}, r"attention_dropout 0\.1 .* must be 0\.0"),
        ({"attention_dropout": "0.0"}, r"attention_dropout '0\.0'"),
        ({"attention_bias": 0}, "attention_bias 0"),
        ({"rope_interleaved": True}, "rope_interleaved True"),
        ({"quantization_config": {}}, "quantization_config {} .* not quantised"),
        ({"auto_map": {"AutoModel": "a.B"}}, "auto_map .* never run"),
        ({"layer_types": 7}, "layer_types .* 2 layers, not 7"),
        ({"layer_types": ["full_attention"]}, "layer_types .* each of the 2 layers"),
        ({"layer_types": [["a"], {}]}, "layer_types with"),
        ({"sliding_window": 4096}, "sliding_window 4096"),
        ({"sliding_window": "4096"}, "sliding_window .* whole number, not '4096'"),
        ({"use_sliding_window": "no"}, "use_sliding_window .* true or false, not 'no'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings .* true or false, not 'no'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps .* finite number .*, not '1e-6'"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps .* not nan"),
        ({"rms_norm_eps": -1e9}, "rms_norm_eps .* at least 0"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"initializer_range": math.inf}, "initializer_range .* not inf"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers .* up to 4096"),
        ({"vocab_size": "32"}, "vocab_size .* not '32'"),
        ({"vocab_size": 32.0}, "vocab_size"),
        ({"hidden_size": True}, "hidden_size .* not True"),
        ({"num_attention_heads": 5}, "hidden_size 24 .* no multiple of num_attention_heads 5"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_named_with_its_value(changes, named):
    with pytest.raises(UserError, match=named) as caught:
        read(**changes)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


def test_a_long_value_is_shortened():
    with pytest.raises(UserError, match=r"odd 'aaa.*aaa' in") as caught:
        read(odd="a" * 10_000)
    assert len(str(caught.value)) < 400


def test_qwen2_has_its_biases_whatever_attention_bias_says():
    values = LLAMA | {"model_type": "qwen2"}
    expected = ModelConfig.from_huggingface(values)
    assert ModelConfig.from_huggingface(values | {"attention_bias": True}) == expected
