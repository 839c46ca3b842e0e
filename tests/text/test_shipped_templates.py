"""The chat templates of the package, against what the models' own write."""

import json

import pytest

from stair_jax import recipes
from stair_jax.errors import UserError
from stair_jax.text import chat
from stair_jax.text.probes import check_encoding

USER = "<|start_header_id|>user<|end_header_id|>\n\nstep<|eot_id|>"
OPEN = "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture
def folder(make, tmp_path):
    """`folder(name)`: the tokenizer of a family as a checkpoint has it."""

    def folder(name):
        hf, stop_ids = make(name)
        hf.save_pretrained(tmp_path / name)
        values = {"eos_token_id": stop_ids or hf.eos_token_id}
        (tmp_path / name / "generation_config.json").write_text(json.dumps(values))
        return tmp_path / name

    return folder


def text_of(tokenizer, prompt="step"):
    return tokenizer.hf.decode(chat.encode_prompt(tokenizer, prompt))


def test_llama_without_a_date_is_llama_without_its_system_turn(folder):
    base = folder("llama3_1")
    own = chat.prepare_tokenizer(base)
    plain = chat.prepare_tokenizer(base, chat_template="llama3_undated")
    dated = (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    )
    assert text_of(own) == "<|begin_of_text|>" + dated + USER + OPEN
    assert text_of(plain, " step \n") == "<|begin_of_text|>" + USER + OPEN
    assert (plain.end_id, plain.stop_ids) == (own.end_id, own.stop_ids)
    check_encoding(plain)
    system = "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    brief = chat.prepare_tokenizer(base, "Be brief.", "llama3_undated")
    assert text_of(brief) == "<|begin_of_text|>" + system + USER + OPEN


def test_a_conversation_is_written_as_llama_does(folder):
    hf = chat.prepare_tokenizer(folder("llama3_1"), chat_template="llama3_undated").hf
    turns = [{"role": "user", "content": "step"}, {"role": "assistant", "content": " one\n"}] * 2
    answer = OPEN + "one<|eot_id|>"
    expected = "<|begin_of_text|>" + (USER + answer) * 2
    assert hf.apply_chat_template(turns, tokenize=False) == expected


def test_a_template_of_another_family_is_refused(folder):
    with pytest.raises(UserError, match=r"llama3_undated: the template writes <\|start_header_id"):
        chat.prepare_tokenizer(folder("qwen2"), chat_template="llama3_undated")
    with pytest.raises(UserError, match=r"cannot read .*llama3_dated.* package: llama3_undated"):
        chat.prepare_tokenizer(folder("qwen2"), chat_template="llama3_dated")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_of_llama_use_it_and_the_others_keep_their_own(name):
    section = recipes.get_config(name).get("model", {})
    expected = "llama3_undated" if name.startswith("llama8b") else ""
    assert section.get("chat_template", "") == expected
