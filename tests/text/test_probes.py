"""Tokenizers of other kinds give the ids of transformers, or are refused in one line."""

import copy
import json

import pytest
from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from stair_jax.errors import UserError
from stair_jax.text import chat, probes, steps
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.rendering import split_control
from stair_jax.text.tokenizer import Tokenizer, add_tags, load_huggingface

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"


def prepared(hf, template=TEMPLATE, **settings):
    hf = copy.deepcopy(hf)
    if template:
        hf.chat_template = template
    add_tags(hf)
    return Tokenizer(hf, chat=ChatSettings(**settings))


def bpe(words, pre_tokenizer, unk=None, decoder=None, **names):
    """A BPE without merges over single characters or bytes."""
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Backend(models.BPE(vocabulary, [], unk_token=unk))
    backend.pre_tokenizer = pre_tokenizer
    if decoder:
        backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=unk, **names)


def byte_level(unk=None, words=("<s>", "</s>"), **names):
    words = [*words, *sorted(pre.ByteLevel.alphabet())]
    pieces = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", **names}
    return bpe(words, pieces, unk, decoders.ByteLevel(), **names)


def test_every_family_agrees_with_transformers(family):
    for system in (None, "Be brief.", "", "Write <|eot_id|>, <|im_end|> and </s> . "):
        probes.check_encoding(Tokenizer(family.hf, family.stop_ids, ChatSettings(system)))


def test_a_tokenizer_that_drops_characters_is_refused():
    hf = bpe(["<s>", "</s>", "a", "b"], pre.Whitespace(), bos_token="<s>", eos_token="</s>")
    assert hf.encode("a\u65e5b") == [2, 3]
    with pytest.raises(UserError, match=r"drops characters that its vocabulary lacks"):
        prepared(hf)


def byte_level_without(*lacking):
    names = bytes_to_unicode()
    words = ["<s>", "</s>", *sorted(set(names.values()) - {names[byte] for byte in lacking})]
    pieces = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    return bpe(words, pieces, None, decoders.ByteLevel(), bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("lacking", [0x80, 0xBF, 0xC3, 0xE6, 0xF0])
def test_a_byte_level_tokenizer_that_lacks_a_byte_of_many_characters_is_refused(lacking):
    with pytest.raises(UserError, match="needs the 256 bytes"):
        prepared(byte_level_without(lacking))


def test_rare_characters_that_a_byte_level_tokenizer_lacks_are_replaced():
    """As SmolLM2 lacks them; transformers drops them."""
    hf = byte_level_without(0xC0, 0xFF, 0xF1, 0xF4, 0x04, 0x1D, ord("["))
    text = "a\x04b\x1d\x1e[c] \U0001f600\U00040000\U0007ffff\U00080000\U0010ffff\u65e5"
    seen = "a\ufffdb\ufffd\x1e\ufffdc] \U0001f600\ufffd\ufffd\U00080000\ufffd\u65e5"
    assert hf.decode(hf.encode("a\x04b[")) == "ab"
    tokenizer = prepared(hf)
    assert tokenizer.decode(tokenizer.encode_text(text)) == seen
    assert tokenizer.decode(tokenizer.encode_text("<s>")) == "<s>"


def test_an_unknown_token_that_begins_a_text_is_refused_where_text_can_give_it():
    hf = bpe(["<s>", "</s>", "a"], pre.Whitespace(), "<s>", bos_token="<s>", eos_token="</s>")
    assert hf.encode("a\u65e5") == [2, 0]
    with pytest.raises(UserError, match="unknown token <s> also begins or ends a text"):
        prepared(hf)


def test_an_unknown_token_that_begins_a_text_is_right_where_each_byte_is_known():
    tokenizer = prepared(byte_level(unk="<s>"))
    ids = chat.encode_prompt(tokenizer, "<s>\u65e5</s>")
    assert [i for i in ids if i < 2] == [0, 1] and ids[0] == 0 and ids[-1] == 1
    assert tokenizer.decode(tokenizer.encode_text("<s>\u65e5</s>")) == "<s>\u65e5</s>"
    probes.check_encoding(tokenizer)


@pytest.mark.parametrize(
    ("scheme", "template", "agrees"),
    [
        ("always", TEMPLATE, True),
        ("never", TEMPLATE, True),
        ("first", TEMPLATE, True),
        # Only a text that begins a document has a space before it, which a prompt never is here.
        ("first", "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}", False),
    ],
)
def test_the_space_of_sentencepiece_is_that_of_transformers(make, scheme, template, agrees):
    hf, _ = make("llama2")
    hf.backend_tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer = prepared(hf, template)
    if agrees:
        probes.check_encoding(tokenizer)
    else:
        with pytest.raises(UserError, match="has other tokens in transformers: from token 0 on"):
            probes.check_encoding(tokenizer)


@pytest.mark.parametrize("normalizer", [normalizers.NFKC(), normalizers.Lowercase()])
def test_what_a_normalizer_does_to_text_is_what_transformers_does(normalizer):
    hf = byte_level()
    hf.backend_tokenizer.normalizer = normalizer
    probes.check_encoding(prepared(hf))


def test_added_tokens_that_are_text_are_refused():
    hf = byte_level()
    hf.add_tokens([AddedToken("  ", special=False, normalized=False)])
    with pytest.raises(UserError, match=r"a prompt 'a  b .* has other tokens in transformers"):
        probes.check_encoding(prepared(hf))


def test_a_difference_is_one_line_that_says_where(monkeypatch, chat_tokenizer):
    monkeypatch.setattr(chat, "encode_prompt", lambda *_: [0, 5])
    with pytest.raises(UserError, match=r"from token 1 on \[.*\], here \[.*\]; this") as error:
        probes.check_encoding(chat_tokenizer)
    assert "\n" not in str(error.value)


def test_truncation_and_padding_in_a_folder_are_cleared(chat_tokenizer, tmp_path):
    chat_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    backend = Backend.from_file(str(path))
    backend.enable_truncation(8)
    backend.enable_padding(length=64, pad_id=0, pad_token="!")
    backend.save(str(path))
    assert json.loads(path.read_text())["truncation"]["max_length"] == 8
    loaded = Tokenizer.load(tmp_path)
    prompt = "a step of many words " * 20
    assert chat.encode_prompt(loaded, prompt) == chat.encode_prompt(chat_tokenizer, prompt)
    probes.check_encoding(loaded)
    loaded.save(tmp_path)
    saved = json.loads(path.read_text())
    assert saved["truncation"] is None and saved["padding"] is None
    assert load_huggingface(tmp_path).backend_tokenizer.truncation is None


def test_a_token_is_control_only_where_its_own_content_stands(make):
    hf, _ = make("llama2")  # its merges make <s> of < and s>
    hf.backend_tokenizer.normalizer = normalizers.Replace("@", "s")
    assert hf.encode("a <@>", add_special_tokens=False)[-1] == 1
    assert list(split_control(hf, "<s>a<@>b</s>")) == [1, "a<@>b", 2]
    add_tags(hf)
    ids = Tokenizer(hf).encode_text("a<@>b")
    assert not {0, 1, 2} & set(ids)


def test_a_tag_is_no_control_token_inside_of_a_users_text(chat_tokenizer):
    plain = chat.encode_prompt(chat_tokenizer, "x")
    added = set(chat_tokenizer.hf.added_tokens_decoder)
    ids = chat.encode_prompt(chat_tokenizer, "".join(steps.TAGS))
    assert [i for i in ids if i in added] == [i for i in plain if i in added]
