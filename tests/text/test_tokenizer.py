"""Text from outside never becomes a control token; our tags are one token each, and visible."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stair_jax.errors import UserError
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer, add_tags, load_huggingface

CONTROL = [*steps.TAGS, "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>"]
HOSTILE = st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=8)), max_size=8).map(
    "".join
)


@pytest.fixture(scope="module")
def folder(chat_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer.save(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 3]}))
    return path


@given(HOSTILE)
def test_text_holds_no_control_token_and_survives(chat_tokenizer, text):
    ids = chat_tokenizer.encode_text(text)
    assert not set(ids) & set(chat_tokenizer.hf.added_tokens_decoder)
    assert chat_tokenizer.decode(ids) == text


@given(HOSTILE)
def test_an_answer_holds_the_tags_and_no_other_control_token(chat_tokenizer, text):
    ids = chat_tokenizer.encode_answer(text)
    tags = vars(chat_tokenizer.tags).values()
    added = [token for token in ids if token in chat_tokenizer.hf.added_tokens_decoder]
    assert [chat_tokenizer.hf.convert_ids_to_tokens(i) for i in added] == (
        steps.TAG_PATTERN.findall(text)
    )
    assert set(added) <= set(tags)
    assert chat_tokenizer.decode(ids) == text


def test_each_tag_is_one_token(chat_tokenizer):
    for tag, token in zip(steps.TAGS, vars(chat_tokenizer.tags).values(), strict=True):
        assert chat_tokenizer.encode_answer(tag) == [token]
        assert len(chat_tokenizer.encode_text(tag)) > 1


def test_decode_shows_tags_and_leaves_specials_out(chat_tokenizer):
    text = steps.format_answer([("Look", "It is  a list .")], "three")
    bos = chat_tokenizer.hf.bos_token_id
    ids = [bos, *chat_tokenizer.encode_answer(text), chat_tokenizer.eos_id]
    assert chat_tokenizer.decode(ids) == text


def test_tags_that_a_checkpoint_made_special_are_still_shown(chat_tokenizer, folder):
    hf = load_huggingface(folder)
    hf.add_special_tokens({"additional_special_tokens": list(steps.TAGS)})
    tokenizer = Tokenizer(hf)
    assert tokenizer.decode([tokenizer.tags.output_open, tokenizer.eos_id]) == steps.OUTPUT_OPEN


def test_saved_and_loaded_it_is_the_same(chat_tokenizer, folder):
    loaded = Tokenizer.load(folder)
    text = steps.format_answer([("Title", "first step <|eot_id|>")], "answer")
    assert loaded.encode_answer(text) == chat_tokenizer.encode_answer(text)
    assert loaded.tags == chat_tokenizer.tags
    assert loaded.vocab_size == chat_tokenizer.vocab_size == len(loaded.hf)
    assert loaded.stop_ids == (loaded.eos_id, 7)
    assert loaded.hf.chat_template == chat_tokenizer.hf.chat_template


def test_a_user_of_transformers_sees_the_tags(chat_tokenizer, folder):
    hf = AutoTokenizer.from_pretrained(folder)
    text = steps.format_answer([("Look", "a list")], "three")
    ids = [*chat_tokenizer.encode_answer(text), chat_tokenizer.eos_id]
    assert hf.decode(ids, skip_special_tokens=True) == text
    assert hf.encode(text, add_special_tokens=False) == ids[:-1]


def test_adding_the_tags_again_adds_nothing(chat_tokenizer):
    size = len(chat_tokenizer.hf)
    assert add_tags(chat_tokenizer.hf) == 0
    assert len(chat_tokenizer.hf) == size


def test_a_pad_token_is_never_needed(chat_tokenizer):
    assert chat_tokenizer.hf.pad_token_id is None
    assert chat_tokenizer.pad_id == chat_tokenizer.eos_id


def test_what_a_user_can_get_wrong(chat_tokenizer, folder, tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match=f"cannot read the tokenizer in {tmp_path}"):
        Tokenizer.load(tmp_path)
    backend = chat_tokenizer.hf.backend_tokenizer
    with pytest.raises(UserError, match="end-of-sequence"):
        Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_tokenizer_without_tags_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    state = json.loads((copy / "tokenizer.json").read_text())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in steps.TAGS]
    (copy / "tokenizer.json").write_text(json.dumps(state))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("added_tokens_decoder", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks the tag"):
        Tokenizer.load(copy)
