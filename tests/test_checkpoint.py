"""A model goes into a folder and comes back in one call each."""

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from stair_jax.checkpoint import load, save
from stair_jax.errors import UserError
from stair_jax.models.heads import init_score_head
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import byte_tokenizer, word_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(tokenizer.vocab_size)


@pytest.mark.parametrize("is_prm", [False, True])
def test_what_was_saved_is_loaded(tmp_path, tokenizer, model, is_prm):
    config, params = model
    if is_prm:
        decoder = {name: values for name, values in params.items() if name != "head"}
        params = {"model": decoder, "score": init_score_head(config, jax.random.key(1))}
    save(tmp_path / "model", config, params, tokenizer)
    found = load(tmp_path / "model")
    assert found.config == config
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert found.tokenizer.encode_answer("<|Output|>a") == tokenizer.encode_answer("<|Output|>a")


def test_the_dtype_is_that_of_parameters_and_activations(tmp_path, tokenizer, model):
    save(tmp_path / "model", *model, tokenizer, dtype="bfloat16")
    config, params, _ = load(tmp_path / "model", dtype="bfloat16")
    assert (config.dtype, config.param_dtype) == ("bfloat16", "bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_a_model_without_the_tags_gets_rows_for_them(tmp_path):
    """As a checkpoint from elsewhere: nine rows, of which its tokenizer uses seven."""
    config, params = tiny_model(9)
    save(tmp_path, config, params, word_tokenizer(["a", "b"]))
    words = {word: index for index, word in enumerate(["</s>", *"abcdef"])}
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Backend(WordLevel(words, unk_token="a")), eos_token="</s>"
    )
    plain.save_pretrained(tmp_path)
    found = load(tmp_path, seed=1)
    tags = list(vars(found.tokenizer.tags).values())
    assert tags == [7, 8, 9, 10] and found.config.vocab_size == found.tokenizer.vocab_size == 12
    for name in ("embedding", "head"):
        rows = np.asarray(found.params[name])
        np.testing.assert_array_equal(rows[:7], params[name][:7])
        assert len(np.unique(rows, axis=0)) == len(rows) == 12
        other = np.asarray(load(tmp_path, seed=2).params[name])
        assert not np.isclose(other[7:], rows[7:]).all(axis=1).any()


def test_the_base_of_the_pocket_world_has_a_name():
    config, params, tokenizer = load("pocket")
    assert config.vocab_size == tokenizer.vocab_size == len(params["embedding"])


def test_a_folder_that_is_none_is_said_clearly(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        load(tmp_path / "none")
