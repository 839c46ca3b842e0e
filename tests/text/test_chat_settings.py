"""System turn and template values: saved with the tokenizer, and independent of the date."""

# ruff: noqa: RUF001 (control tokens of DeepSeek, and look-alikes, are meant)

import copy
import datetime
import json
import re

import jinja2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.text import chat
from stair_jax.text.chat_settings import FILE, ChatSettings
from stair_jax.text.clock import with_fixed_clock
from stair_jax.text.probes import check_encoding
from stair_jax.text.tokenizer import Tokenizer


def with_settings(family, *args) -> Tokenizer:
    return Tokenizer(family.hf, family.stop_ids, ChatSettings(*args))


def text_of(tokenizer, prompt="step"):
    return tokenizer.hf.decode(chat.encode_prompt(tokenizer, prompt))


@pytest.mark.parametrize("family", ["llama3_1", "llama3_2"], indirect=True)
def test_the_date_of_a_header_does_not_move(family):
    assert "Today Date: 26 Jul 2024\n" in text_of(family)
    other = with_settings(family, None, {"date_string": "01 Jan 1970"})
    assert "Today Date: 01 Jan 1970\n" in text_of(other)


def test_the_clock_of_a_template_stands_still(chat_tokenizer):
    hf = copy.deepcopy(chat_tokenizer.hf)
    hf.chat_template = "{{ strftime_now('%A, %d %B %Y, %H:%M') }} {{ messages[0]['content'] }}"
    for values, text in (
        ({}, "Friday, 26 July 2024, 00:00 step"),
        ({"date_string": "01 Jan 1970"}, "Thursday, 01 January 1970, 00:00 step"),
        ({"date_string": "2024-01-01"}, "Friday, 26 July 2024, 00:00 step"),
    ):
        tokenizer = Tokenizer(hf, chat=ChatSettings(None, values))
        assert text_of(tokenizer) == text
        assert "macro" not in tokenizer.hf.chat_template
        check_encoding(tokenizer)


@given(st.lists(st.sampled_from([*"%aAbBdejmMyYHIpDFTR- x", "%-d", "%%"])).map("".join))
def test_the_fixed_clock_writes_a_date_as_strftime_does(form):
    date = datetime.datetime(2024, 7, 26)
    spoken = re.sub(r"%%|%-?[aAbBdejmMyYHIpDFTR]", "", form)
    assume("%" not in spoken)  # of no meaning, and different from one platform to the next
    template = with_fixed_clock("\n  {{ strftime_now(form) }}", "26 Jul 2024", "")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    written = environment.from_string(template).render(form=form)
    assert written == "\n  " + date.strftime(form)


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_a_value_of_the_template_decides_whether_a_model_thinks(family):
    assert text_of(family).endswith("assistant\n")
    assert text_of(with_settings(family, None, {"enable_thinking": True})) == text_of(family)
    quiet = with_settings(family, None, {"enable_thinking": False})
    assert text_of(quiet) == text_of(family) + "<think>\n\n</think>\n\n"
    think = family.hf.convert_tokens_to_ids("<think>")
    assert chat.encode_prompt(quiet, "a <think>").count(think) == 1


@pytest.mark.parametrize("family", ["qwen2", "qwen2_5"], indirect=True)
def test_qwen_has_a_system_turn_of_its_own_unless_it_is_given_one(family):
    assert "You are" in text_of(family)
    assert text_of(with_settings(family, "Be brief.")) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nstep<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "<|im_start|>system\n<|im_end|>\n" in text_of(with_settings(family, ""))


@pytest.mark.parametrize("family", ["r1_qwen", "r1_llama"], indirect=True)
def test_a_distillation_of_r1_starts_with_its_thoughts(family):
    assert text_of(with_settings(family, "Be brief.")) == (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>step<｜Assistant｜><think>\n"
    )


def test_a_template_that_leaves_the_system_turn_out_is_a_clear_error(chat_tokenizer):
    tokenizer = with_settings(chat_tokenizer, "Be brief.")
    assert "Be brief." in text_of(tokenizer)
    hf = copy.deepcopy(tokenizer.hf)
    hf.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(
        UserError, match="must contain the system's text exactly once: leave system"
    ):
        chat.encode_prompt(Tokenizer(hf, chat=ChatSettings("Be brief.")), "step")


def test_equal_settings_are_one_key():
    first = ChatSettings("a", {"x": (1, 2), "y": {"z": None}})
    again = ChatSettings("a", {"y": {"z": None}, "x": [1, 2]})
    assert first == again and hash(first) == hash(again)
    assert len({first, ChatSettings("a"), ChatSettings(None), ChatSettings("")}) == 4


def test_saved_settings_come_back(tmp_path):
    settings = ChatSettings("Be brief.\n日本", {"enable_thinking": False})
    settings.save(tmp_path)
    assert ChatSettings.load(tmp_path) == settings
    (tmp_path / FILE).unlink()
    assert ChatSettings.load(tmp_path) == ChatSettings()


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ("[]", "holds no JSON object"),
        ('{"sytem": "a"}', "has no field 'sytem'"),
        ('{"system": 3}', "system is 3: it must be text or None"),
        ('{"template_values": "a"}', "template_values is .a.: it must be a mapping"),
        ("{", "is damaged"),
    ],
)
def test_damaged_settings_are_a_clear_error(tmp_path, saved, reason):
    (tmp_path / FILE).write_text(saved)
    with pytest.raises(UserError, match=reason):
        ChatSettings.load(tmp_path)


def test_values_that_cannot_be_saved_are_refused():
    with pytest.raises(UserError, match="template_values must be JSON"):
        ChatSettings(None, {"clock": object()})


@pytest.fixture
def checkpoint(family, tmp_path):
    """A Hugging Face folder without chat settings."""
    family.save(tmp_path / "base")
    (tmp_path / "base" / FILE).unlink()
    values = {"eos_token_id": list(family.stop_ids), "temperature": 0.6}
    (tmp_path / "base/generation_config.json").write_text(json.dumps(values))
    return tmp_path / "base"


@pytest.mark.parametrize("family", ["qwen2", "llama3_1"], indirect=True)
def test_a_checkpoint_is_prepared_with_a_system_turn(family, checkpoint, tmp_path):
    plain = chat.prepare_tokenizer(checkpoint)
    assert plain.chat == ChatSettings()
    assert chat.encode_prompt(plain, "step") == chat.encode_prompt(family, "step")
    assert (plain.stop_ids, plain.generation) == (family.stop_ids, {"temperature": 0.6})
    assert plain.pad_id not in plain.stop_ids
    tokenizer = chat.prepare_tokenizer(checkpoint, "Be brief.")
    assert chat.encode_prompt(tokenizer, "step") != chat.encode_prompt(plain, "step")
    tokenizer.save(tmp_path / "out")
    assert chat.prepare_tokenizer(tmp_path / "out").chat == ChatSettings("Be brief.")
    changed = chat.prepare_tokenizer(tmp_path / "out", "", template_values={"date_string": "now"})
    changed.save(tmp_path / "out")
    again = chat.prepare_tokenizer(tmp_path / "out", template_values={"enable_thinking": False})
    assert again.chat == ChatSettings("", {"date_string": "now", "enable_thinking": False})


@pytest.mark.parametrize("family", ["r1_qwen"], indirect=True)
def test_a_template_may_be_replaced_by_a_file(family, checkpoint, tmp_path):
    path = tmp_path / "short.jinja"
    path.write_text("{{ '<｜User｜>' + messages[-1]['content'] + '<｜Assistant｜>' }}")
    tokenizer = chat.prepare_tokenizer(checkpoint, None, str(path))
    tokenizer.save(tmp_path / "out")
    for each in (tokenizer, Tokenizer.load(tmp_path / "out")):
        assert text_of(each) == "<｜User｜>step<｜Assistant｜>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "cannot read the chat template"),
        (b"\xff\xfe", "it is no UTF-8 text"),
        (b"{% for %}", "short.jinja: the chat template of the tokenizer fails"),
        (b"{{ messages[7]['content'] | upper }}", "short.jinja: the chat template"),
        (b"{{ 1 // 0 }}", "short.jinja: the chat template of the tokenizer fails"),
        (b"{{ messages.append(1) }}", "short.jinja: the chat template of the tokenizer fails"),
        (b"", "short.jinja: the tokenizer has no chat template"),
        (b"hello", "short.jinja: the chat template of the tokenizer must contain the"),
    ],
)
@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_a_template_file_that_cannot_serve_is_named(family, checkpoint, tmp_path, template, reason):
    path = tmp_path / "short.jinja"
    if template is not None:
        path.write_bytes(template)
    with pytest.raises(UserError, match=reason):
        chat.prepare_tokenizer(checkpoint, chat_template=str(path))


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_a_checkpoint_without_a_template_is_prepared_all_the_same(family, checkpoint):
    (checkpoint / "chat_template.jinja").unlink()
    tokenizer = chat.prepare_tokenizer(checkpoint)
    with pytest.raises(UserError, match="no chat template"):
        chat.encode_prompt(tokenizer, "step")
