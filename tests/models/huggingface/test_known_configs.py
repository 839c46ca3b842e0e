"""The configs of public checkpoints, by their published numbers of parameters."""

import math
from functools import partial

import jax
import pytest
from transformers import AutoConfig

from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.models.transformer import init_params

# Numbers of parameters as the hub states them for the published safetensors.
PARAMETERS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "Qwen/Qwen2-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "google/gemma-2b-it": 2_506_172_416,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": 8_190_735_360,
}


def test_every_known_model_has_a_published_count():
    assert KNOWN.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_as_many_as_in_the_published_checkpoint(name):
    config = ModelConfig.from_huggingface(KNOWN[name].config)
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == PARAMETERS[name]
    assert KNOWN[name].num_tokens <= config.vocab_size


@pytest.mark.parametrize("name", KNOWN)
def test_transformers_reads_the_same_config(name):
    config = ModelConfig.from_huggingface(KNOWN[name].config)
    theirs = AutoConfig.for_model(**KNOWN[name].config).to_dict()
    ours = AutoConfig.for_model(**config.to_huggingface()).to_dict()
    for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        assert ours[field] == theirs[field]
    for field in ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps"):
        assert ours[field] == theirs[field]
    assert ours["tie_word_embeddings"] is theirs["tie_word_embeddings"]
    assert ours["architectures"] == theirs["architectures"] == [config.causal_architecture]
    width = config.hidden_size // config.num_attention_heads
    assert ours["head_dim"] == theirs.get("head_dim", width)
    added = {"attention_factor", "attn_factor", "beta_fast", "beta_slow"}  # see test_rotary
    for field in ours["rope_parameters"].keys() - added:
        assert ours["rope_parameters"][field] == theirs["rope_parameters"][field]
    assert set(ours.get("layer_types", ["full_attention"])) == {"full_attention"}
