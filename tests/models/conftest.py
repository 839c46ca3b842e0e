"""Small models, in transformers and here, and a small tokenizer."""

from functools import cache
from pathlib import Path

import jax
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.text.tokenizer import Tokenizer, add_tags

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
TRAINED = {
    "stories260K": ROOT.parent / "shared/data/stories260K",
    "pocket": ROOT / "stair_jax/pocket/base",
}


@pytest.fixture(scope="session")
def trained_folder():
    """A function from the name of a trained model to its folder; skips if it is not there."""

    def find(name):
        if not (TRAINED[name] / "model.safetensors").is_file():
            pytest.skip(f"there is no checkpoint {name} at {TRAINED[name]}")
        return TRAINED[name]

    return find


@pytest.fixture(scope="session", params=sorted(TRAINED))
def trained(request, trained_folder):
    """Folder of a trained model."""
    return trained_folder(request.param)


@pytest.fixture(scope="session")
def tokenizer():
    """20 words, end and padding tokens, and the four tags: 26 ids."""
    vocabulary = {
        word: index for index, word in enumerate(["</s>", "<pad>", *"abcdefghijklmnopqrst"])
    }
    backend = Backend(WordLevel(vocabulary, unk_token="a"))
    backend.pre_tokenizer = Whitespace()
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    add_tags(hf)
    return Tokenizer(hf)


@pytest.fixture(scope="session")
def tiny():
    """(config, parameters) of a random untied model."""
    config = ModelConfig(40, 32, 48, 2, 4, 2, 10, initializer_range=0.3)
    return config, init_params(config, jax.random.key(0))


_SIZES = {
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_ROPE = {"rope_type": "default", "rope_theta": 500.0}
# Of the 5 frequencies of a head of 10, one is kept, one interpolated, three are lowered.
_LLAMA3_ROPE = _ROPE | {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN_ROPE = _ROPE | {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "attention_factor": 1.3,
}
# The head_dim of Llama and Qwen3 here is not hidden_size / heads.
_OWN_WIDTH = _SIZES | {"head_dim": 10, "rope_parameters": _ROPE}
FAMILIES = {
    "llama": LlamaConfig(**_OWN_WIDTH),
    "llama_tied": LlamaConfig(**_OWN_WIDTH | {"tie_word_embeddings": True}),
    "llama3": LlamaConfig(**_OWN_WIDTH | {"rope_parameters": _LLAMA3_ROPE}),
    "llama3_tied": LlamaConfig(
        **_OWN_WIDTH | {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True}
    ),
    "qwen2": Qwen2Config(**_SIZES, rope_parameters=_ROPE),
    "qwen2_tied": Qwen2Config(**_SIZES | {"rope_parameters": _ROPE, "tie_word_embeddings": True}),
    "qwen3": Qwen3Config(**_OWN_WIDTH),
    # The window is as long as the longest rows of the tests: transformers masks by it.
    "mistral": MistralConfig(**_OWN_WIDTH | {"sliding_window": 96}),
    "phi3": Phi3Config(**_SIZES | {"rope_parameters": _ROPE, "sliding_window": 96}),
    "gemma": GemmaConfig(**_OWN_WIDTH | {"tie_word_embeddings": True}),
    "qwen3_yarn": Qwen3Config(**_OWN_WIDTH | {"rope_parameters": _YARN_ROPE}),
}


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """A function from the name of a family to (folder, transformers model), made once.

    Random float32 models, with norms that multiply by 0.5 to 1.5 and biases other than zero.
    """

    @cache
    def make(name):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(FAMILIES[name]).eval()
        added = 1.0 if name == "gemma" else 0.0  # by its norms to their scales
        for tensor, values in model.named_parameters():
            if "norm" in tensor:
                values.data.uniform_(0.5 - added, 1.5 - added)
            if "bias" in tensor:
                values.data.uniform_(-1.0, 1.0)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        return folder, model

    return make


@pytest.fixture(scope="session", params=["llama", "llama_tied"], ids=["untied", "tied"])
def checkpoint(request, make_checkpoint):
    """(folder, transformers model) of Llama with an untied and with a tied head."""
    return make_checkpoint(request.param)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request, make_checkpoint):
    """(folder, transformers model) of each family."""
    return make_checkpoint(request.param)
