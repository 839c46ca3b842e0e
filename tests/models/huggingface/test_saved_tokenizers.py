"""A folder that is written is read by transformers without a word, and with the same tokens."""

import json
import logging
from contextlib import contextmanager

import pytest
from packaging.version import Version
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from tokenizers import pre_tokenizers as pre
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stair_jax.models import huggingface
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.text.steps import format_output
from stair_jax.text.tokenizer import Tokenizer, add_tags

LARGE = 100_500  # transformers looks at the pattern of tokenizers above 100,000


@pytest.fixture(scope="module")
def large():
    """A byte-level tokenizer with the end of a turn as Qwen2 has it, and many tokens."""
    words = [*sorted(pre.ByteLevel.alphabet()), *(f"word{number}" for number in range(LARGE))]
    backend = Backend(models.BPE({word: index for index, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    hf.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    add_tags(hf)
    return Tokenizer(hf)


@contextmanager
def what_transformers_says():
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_large_tokenizer_is_read_without_a_warning(large, family, tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    config, params = tiny_model(large.vocab_size, **sizes, model_type=family)
    huggingface.save(tmp_path / "hf", params, config, large, dtype="float16")
    with what_transformers_says() as said:
        hf = AutoTokenizer.from_pretrained(tmp_path / "hf")
        again = Tokenizer.load(tmp_path / "hf")
    assert not said
    text = format_output("It's 10 o'clock, 日本 1234!")
    assert hf.encode(text, add_special_tokens=False) == large.encode_answer(text)
    assert again.encode_answer(text) == large.encode_answer(text)
    # Transformers 5.17 warns of a folder that names no version.
    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert Version("5") <= Version(written["transformers_version"])
