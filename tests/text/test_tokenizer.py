"""Untrusted text never becomes a control token; the tags are single, visible tokens."""

import json
import pickle
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stair_jax.decoding import requests
from stair_jax.errors import UserError
from stair_jax.text import steps
from stair_jax.text.tokenizer import MAX_STOP_IDS, Tokenizer, add_tags, load_huggingface

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


@pytest.mark.parametrize("again", [lambda it: it, lambda it: pickle.loads(pickle.dumps(it))])
def test_saved_and_loaded_it_is_the_same(chat_tokenizer, folder, again):
    loaded = again(Tokenizer.load(folder))
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


def word_tokenizer(words, **names):
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.mark.parametrize(
    ("words", "pad", "stop_ids", "expected"),
    [
        (["a", "</s>", "<p>"], "<p>", [], "<p>"),
        (["a", "</s>", "<p>", "<pad>"], "<p>", [2], "<pad>"),
        (["a", "</s>", "<pad>"], "</s>", [2], "<|pad|>"),
        (["a", "</s>", "<|endoftext|>"], None, [], "<|endoftext|>"),
        (["a", "</s>", "<|endoftext|>", "<unk>"], None, [2], "<unk>"),
        (["a", "</s>"], None, [], "<|pad|>"),
    ],
)
def test_the_padding_token_is_the_own_or_a_reserved_or_a_new_one(words, pad, stop_ids, expected):
    hf = word_tokenizer(words, eos_token="</s>", pad_token=pad)
    assert add_tags(hf, stop_ids) == 4
    assert hf.pad_token == expected
    tokenizer = Tokenizer(hf, stop_ids)
    assert tokenizer.pad_id == tokenizer.hf.get_vocab()[expected]
    assert tokenizer.pad_id not in tokenizer.stop_ids
    assert tokenizer.vocab_size == len(words) + 4 + (expected not in words)
    assert add_tags(hf, stop_ids) == 0 and hf.pad_token == expected


def test_a_word_that_is_a_control_token_is_unknown_in_text():
    hf = word_tokenizer(["a", "</s>"], eos_token="</s>")
    add_tags(hf)
    tokenizer = Tokenizer(hf)
    assert hf.encode("</s>", add_special_tokens=False) == [1]
    assert tokenizer.encode_text("</s>") == [0]


def test_a_tokenizer_whose_control_tokens_cannot_be_taken_out_is_refused():
    backend = Backend(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0)], 0))
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    add_tags(hf)
    with pytest.raises(UserError, match="is a Unigram model: only BPE"):
        Tokenizer(hf)


def test_special_tokens_without_a_role_are_left_out_of_decoded_text():
    hf = word_tokenizer(["a", "</s>"], eos_token="</s>")
    hf.add_tokens([AddedToken("<|header|>", special=True), AddedToken("<think>", special=False)])
    add_tags(hf)
    assert Tokenizer(hf).decode(hf.convert_tokens_to_ids(["<|header|>", "<think>"])) == "<think>"


def test_requests_of_the_engine_have_room_for_all_stop_ids_and_both_closing_tags():
    assert MAX_STOP_IDS + 2 == requests.MAX_STOP_IDS


@pytest.mark.parametrize(
    ("stop", "stop_ids"), [(3, (3,)), ([7, 3], (3, 7)), ([3], (3,)), (None, (3,)), ([], (3,))]
)
def test_stop_ids_come_from_the_generation_config(folder, tmp_path, stop, stop_ids):
    copy = shutil.copytree(folder, tmp_path / "copy")
    values = {"eos_token_id": stop, "temperature": 0.6, "top_p": 0.9, "pad_token_id": 1}
    (copy / "generation_config.json").write_text(json.dumps(values))
    tokenizer = Tokenizer.load(copy)
    assert tokenizer.eos_id == 3 and tokenizer.stop_ids == stop_ids
    assert tokenizer.generation == {"temperature": 0.6, "top_p": 0.9}
    (copy / "generation_config.json").unlink()
    assert Tokenizer.load(copy).stop_ids == (3,) and Tokenizer.load(copy).generation == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"eos_token_id": [0, 1, 2, 4, 5, 6]}', "7 tokens end an answer, but at most 6 may"),
        ('{"eos_token_id": "</s>"}', "eos_token_id must be a token id or a list of them"),
        ('{"eos_token_id": [1, true]}', "eos_token_id must be"),
        ('{"eos_token_id": -1}', "eos_token_id must be"),
        ("[1]", "generation_config.json is damaged: it holds no JSON object"),
    ],
)
def test_a_generation_config_that_cannot_be_is_a_clear_error(folder, tmp_path, text, reason):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=reason):
        Tokenizer.load(copy)


def test_the_saved_folder_is_in_the_words_that_transformers_4_reads(chat_tokenizer, folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["<|start_header_id|>", "<|end_header_id|>"]
    assert "extra_special_tokens" not in config
    assert load_huggingface(folder).extra_special_tokens == chat_tokenizer.hf.extra_special_tokens


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
