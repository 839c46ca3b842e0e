"""Reading, checking and writing `config.json`."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from stair_jax.errors import UserError
from stair_jax.models.config import MODEL_TYPES, ModelConfig
from stair_jax.models.rotary import RopeScaling, yarn_attention_factor

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

QWEN2 = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2}
QWEN3 = QWEN2 | {"model_type": "qwen3"}
MISTRAL = QWEN2 | {"model_type": "mistral", "sliding_window": 16}
PHI3 = QWEN2 | {"model_type": "phi3"}
GEMMA = QWEN2 | {"model_type": "gemma"}
FAMILIES = {values["model_type"]: values for values in (LLAMA, QWEN2, QWEN3, MISTRAL, PHI3, GEMMA)}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def test_absent_fields_have_the_defaults_of_transformers():
    config = ModelConfig.from_huggingface(LLAMA)
    assert (config.num_key_value_heads, config.head_dim) == (4, 6)
    assert (config.rope_theta, config.rms_norm_eps) == (10000.0, 1e-6)
    assert not config.tie_word_embeddings


def test_config_goes_out_and_in():
    config = ModelConfig.from_huggingface(
        LLAMA | {"head_dim": 8, "num_key_value_heads": 2, "rope_theta": 5e5, "rms_norm_eps": 1e-5}
    )
    assert config.rope_theta == 5e5
    assert ModelConfig.from_huggingface(config.to_huggingface()) == config
    assert hash(config) == hash(ModelConfig.from_huggingface(config.to_huggingface()))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_absent_fields_of_each_family_have_the_defaults_of_transformers(model_type):
    values = LLAMA | {"model_type": model_type, "num_attention_heads": 32, "hidden_size": 64}
    config = ModelConfig.from_huggingface(values)
    theirs = AutoConfig.for_model(**values)
    assert config.num_key_value_heads == theirs.num_key_value_heads
    assert config.head_dim == getattr(theirs, "head_dim", 2)
    assert config.max_position_embeddings == theirs.max_position_embeddings
    assert config.rope_theta == theirs.rope_parameters["rope_theta"]
    assert config.rms_norm_eps == theirs.rms_norm_eps
    assert config.tie_word_embeddings == theirs.tie_word_embeddings


def test_rope_of_transformers_4_and_5_is_read():
    scaling = RopeScaling("yarn", 4.0, 64, attention_factor=yarn_attention_factor(4.0))
    for rope in (
        {"rope_parameters": YARN | {"rope_theta": 777.0}},
        {"rope_scaling": YARN, "rope_theta": 777.0},
    ):
        config = ModelConfig.from_huggingface(LLAMA | rope)
        assert (config.rope_theta, config.rope_scaling) == (777.0, scaling)


@pytest.mark.parametrize("values", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("rope", [{}, {"rope_scaling": YARN}], ids=["plain", "yarn"])
def test_transformers_5_reads_what_is_written(values, rope):
    if values is PHI3 and rope:
        pytest.skip("Phi-3 has another scaling")
    config = ModelConfig.from_huggingface(values | rope | {"head_dim": 8, "rope_theta": 777.0})
    written = config.to_huggingface()
    theirs = AutoConfig.for_model(**written)
    assert (theirs.model_type, theirs.head_dim) == (values["model_type"], 8)
    expected = {"rope_type": "default", "rope_theta": 777.0} | (written["rope_scaling"] or {})
    shared = {"partial_rotary_factor": 1.0} if values is PHI3 else {}  # that Phi-3 always has
    assert theirs.rope_parameters == expected | shared
    assert ModelConfig.from_huggingface(theirs.to_dict()) == config
    # Transformers 4 and vLLM read these, but not the fields of transformers 5.
    older = {name: value for name, value in written.items() if name != "rope_parameters"}
    assert ModelConfig.from_huggingface(older) == config


@pytest.mark.parametrize("values", FAMILIES.values(), ids=FAMILIES)
def test_architectures_are_classes_of_transformers(values):
    config = ModelConfig.from_huggingface(values)
    theirs = AutoConfig.for_model(**config.to_huggingface(), pad_token_id=0)
    for auto, name in (
        (AutoModelForCausalLM, config.causal_architecture),
        (AutoModelForSequenceClassification, config.scoring_architecture),
    ):
        assert type(auto.from_config(theirs)).__name__ == name


def test_biases_and_norms_belong_to_their_families():
    configs = [ModelConfig.from_huggingface(values) for values in (LLAMA, QWEN2, QWEN3)]
    assert [config.qkv_bias for config in configs] == [False, True, False]
    assert [config.qk_norm for config in configs] == [False, False, True]


def test_only_gemma_scales_its_embedding_and_adds_to_its_norms():
    configs = [ModelConfig.from_huggingface(values) for values in FAMILIES.values()]
    found = [(config.has_gelu, config.embedding_scale, config.norm_offset) for config in configs]
    assert found == [(False, 1.0, 0.0)] * 5 + [(True, 24**0.5, 1.0)]


@pytest.mark.parametrize(("multiple", "rows"), [(1, 33), (8, 40), (33, 33), (128, 128)])
def test_vocabulary_is_padded_to_a_multiple(multiple, rows):
    config = ModelConfig(33, 24, 40, 2, 4, 2, 6, vocab_multiple=multiple)
    assert (config.vocab_size, config.padded_vocab_size) == (33, rows)
    assert config.to_huggingface()["vocab_size"] == 33


def test_a_sliding_window_that_is_not_in_use_is_none():
    unused = {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}
    full = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}
    plain = ModelConfig.from_huggingface(QWEN2)
    assert ModelConfig.from_huggingface(QWEN2 | unused) == plain
    assert ModelConfig.from_huggingface(QWEN2 | full) == plain
    assert ModelConfig.from_huggingface(QWEN2 | {"layer_types": ["full_attention"] * 2}) == plain


@pytest.mark.parametrize(
    ("given", "window", "context"),
    [
        ({}, 4096, 4096),  # the default of transformers
        ({"sliding_window": None}, None, 32768),
        ({"sliding_window": 40000}, 40000, 32768),
    ],
)
def test_the_window_of_mistral_is_kept_and_bounds_the_context(given, window, context):
    plain = {name: value for name, value in MISTRAL.items() if name != "sliding_window"}
    values = plain | {"max_position_embeddings": 32768} | given
    config = ModelConfig.from_huggingface(values)
    assert (config.sliding_window, config.context_tokens) == (window, context)
    assert ModelConfig.from_huggingface(config.to_huggingface()) == config
    assert AutoConfig.for_model(**config.to_huggingface()).sliding_window == window
    assert config.padded_length(100, 8192) == min(8192, window or 8192)
    if window:
        config.check_length(window, "the context", "context_tokens")
        with pytest.raises(UserError, match=f"sliding_window {window} .* lower context_tokens to"):
            config.check_length(window + 1, "the context", "context_tokens")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window .* positive"),
        ({"model_type": "mistral", "sliding_window": "16"}, "sliding_window .* whole number"),
        ({"model_type": "gpt2"}, "gpt2"),
        ({"model_type": "gemma2"}, r"gemma2.*attn_logit_softcapping.*: choose one of llama, "),
        ({"model_type": "gemma3_text"}, r"gemma3_text.*layers are of two kinds.*layer_types"),
        ({"model_type": "mixtral"}, "mixtral.*experts"),
        ({"model_type": "bert"}, "bert.*encoder"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "llama3"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"use_sliding_window": True, "max_window_layers": 1}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias"),
        ({"model_type": "qwen3_moe"}, "qwen3_moe"),
        ({"model_type": None}, "model_type"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 5}, "head_dim"),
    ],
)
def test_what_is_not_supported_is_named(changes, named):
    with pytest.raises(UserError, match=named):
        ModelConfig.from_huggingface(LLAMA | changes)


@pytest.mark.parametrize("field", ["dtype", "param_dtype", "remat", "model_type"])
def test_unknown_choice_is_named(field):
    with pytest.raises(UserError, match=f"{field} 'odd'"):
        ModelConfig(32, 24, 40, 2, 4, 2, 6, **{field: "odd"})
