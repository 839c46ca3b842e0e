"""Tiny models and tokenizers are what they say."""

import jax
import numpy as np
import pytest

from stair_jax.testing.tiny_models import tiny_config, tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer, byte_tokenizer, word_tokenizer
from stair_jax.text.chat import encode_prompt
from stair_jax.text.steps import format_answer

MAKERS = {"byte": byte_tokenizer, "word": word_tokenizer, "bpe": bpe_tokenizer}


def test_a_tiny_model_is_tiny_and_depends_on_its_seed():
    config, params = tiny_model(50, tie_word_embeddings=True)
    assert config == tiny_config(50, tie_word_embeddings=True) and config.vocab_size == 50
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 6000
    again, other = (tiny_model(50, seed, tie_word_embeddings=True)[1] for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert not np.isclose(other["embedding"], params["embedding"]).all(axis=1).any()


@pytest.mark.parametrize("name, size", [("byte", 265), ("word", 18), ("bpe", 347)])
def test_tokenizers_have_tags_and_a_chat_template(name, size):
    tokenizer = MAKERS[name]()
    assert tokenizer.vocab_size == size
    assert encode_prompt(tokenizer, "rate 5")
    ids = tokenizer.encode_answer(format_answer([("A", "rate 5")], "SAFE"))
    tags = vars(tokenizer.tags).values()
    assert [token for token in ids if token in tags] == list(tags)


def test_words_are_one_token_each_and_others_are_unknown():
    tokenizer = word_tokenizer(["how", "why"])
    ids = tokenizer.encode_text("why how what")
    assert tokenizer.hf.convert_ids_to_tokens(ids) == ["why", "how", "[UNK]"]
