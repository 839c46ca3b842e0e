"""Small models in transformers and here, and a small tokenizer."""

from pathlib import Path

import jax
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.text.tokenizer import Tokenizer, add_tags

ROOT = Path(__file__).parents[2]
TRAINED = {
    "stories260K": ROOT.parent / "shared/data/stories260K",
    "pocket": ROOT / "stair_jax/pocket/base",
}


@pytest.fixture(scope="session", params=sorted(TRAINED))
def trained(request):
    """Folder of a trained model."""
    folder = TRAINED[request.param]
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"there is no checkpoint {request.param} at {folder}")
    return folder


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


def llama_config(tie_word_embeddings=False, **changes):
    """Grouped queries, and heads whose width is not hidden_size / heads."""
    values = {
        "vocab_size": 32,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.3,
        "tie_word_embeddings": tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    return LlamaConfig(**values | changes)


@pytest.fixture(scope="session", params=[False, True], ids=["untied", "tied"])
def checkpoint(request, tmp_path_factory):
    """(folder, transformers model) of a random float32 model with norms that are not one."""
    torch.manual_seed(3)
    model = LlamaForCausalLM(llama_config(tie_word_embeddings=request.param)).eval()
    for name, values in model.named_parameters():
        if "norm" in name:
            values.data.uniform_(0.5, 1.5)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder, model
