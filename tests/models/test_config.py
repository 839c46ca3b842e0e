import pytest

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


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


def test_rope_parameters_of_transformers_5_are_read():
    rope = {"rope_type": "default", "rope_theta": 777.0}
    assert ModelConfig.from_huggingface(LLAMA | {"rope_parameters": rope}).rope_theta == 777.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "llama3"),
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


@pytest.mark.parametrize("field", ["dtype", "param_dtype", "remat"])
def test_unknown_choice_is_named(field):
    with pytest.raises(UserError, match=f"{field} 'odd'"):
        ModelConfig(32, 24, 40, 2, 4, 2, 6, **{field: "odd"})
