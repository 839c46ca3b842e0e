"""A thought that a template opens is closed, once, and wherever the tokenizer goes."""

# ruff: noqa: RUF001 (control tokens of DeepSeek are meant)

import pytest
from transformers import AutoTokenizer

from stair_jax.text import chat
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.thoughts import close_thoughts
from stair_jax.text.tokenizer import Tokenizer

EMPTY = "<think>\n\n</think>\n\n"


def text_of(tokenizer):
    return tokenizer.hf.decode(chat.encode_prompt(tokenizer, "step"))


@pytest.mark.parametrize("name", ["r1_qwen", "r1_llama"])
def test_an_answer_of_a_distillation_of_r1_stands_behind_the_thought(make, name, tmp_path):
    hf, _ = make(name)
    hf.save_pretrained(tmp_path)
    tokenizer = chat.prepare_tokenizer(tmp_path, system="Be brief.")
    expected = f"<｜begin▁of▁sentence｜>Be brief.<｜User｜>step<｜Assistant｜>{EMPTY}"
    assert text_of(tokenizer) == expected
    marks = hf.convert_tokens_to_ids(["<think>", "</think>"])
    assert [i for i in chat.encode_prompt(tokenizer, "a </think>") if i in marks] == marks
    tokenizer.save(tmp_path / "saved")
    # Once: the saved template opens nothing more.
    assert text_of(chat.prepare_tokenizer(tmp_path / "saved")) == expected
    assert text_of(Tokenizer.load(tmp_path / "saved")) == expected
    served = AutoTokenizer.from_pretrained(tmp_path / "saved").apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "step"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert served == chat.encode_prompt(tokenizer, "step")
    assert tokenizer.end_id == tokenizer.eos_id  # an assistant's turn is as it was


def with_prompt(make, prompt, turn=""):
    hf, _ = make("qwen3")
    hf.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + (turn or prompt) + "{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
        + prompt
        + "{% endif %}"
    )
    return hf


@pytest.mark.parametrize(
    ("prompt", "closing"),
    [
        ("<think>", "\n\n</think>\n\n"),
        ("<think>{{ '\\n' }}", "\n</think>\n\n"),
        ("<think>{{ '\\n\\n' }}", "</think>\n\n"),
        ("<inner-thought>", "\n\n</inner-thought>\n\n"),
        ("<|im_start|>assistant", ""),
        ("<think></think>", ""),
        ("<think>{{ '\\n' }}Well,", ""),
        ("<start_of_turn>model{{ '\\n' }}", ""),
    ],
)
def test_what_the_generation_prompt_ends_in_is_closed(make, prompt, closing):
    hf = with_prompt(make, prompt, turn="<|im_start|>")
    before = hf.chat_template
    assert close_thoughts(hf, ChatSettings()) == closing
    turns = [{"role": "user", "content": "a"}]
    opened = hf.apply_chat_template(
        turns, chat_template=before, tokenize=False, add_generation_prompt=True
    )
    assert (
        hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        == opened + closing
    )
    assert hf.apply_chat_template(turns, tokenize=False) == "a<|im_end|>"
    assert close_thoughts(hf, ChatSettings()) == ""


@pytest.mark.parametrize("ending", ["\n", "\r\n", "{# the end #}\n", "  "])
def test_a_template_file_may_end_as_it_likes(make, ending):
    hf = with_prompt(make, "<think>", turn="<|im_start|>")
    hf.chat_template += ending
    assert close_thoughts(hf, ChatSettings()) == "\n\n</think>\n\n"


def test_a_mark_that_opens_each_turn_of_an_assistant_is_no_thought(make):
    hf = with_prompt(make, "<bot>")
    before = hf.chat_template
    assert close_thoughts(hf, ChatSettings()) == "" and hf.chat_template == before
