"""Prompts rendered by the chat template: equal to transformers', and safe against injection."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax.errors import UserError
from stair_jax.text import chat, steps
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.tokenizer import Tokenizer, add_tags

CONTROL = [*steps.TAGS, "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>"]
HOSTILE = st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=8)), max_size=6).map(
    "".join
)


def with_template(tokenizer: Tokenizer, template: str | None) -> Tokenizer:
    hf = copy.deepcopy(tokenizer.hf)
    hf.chat_template = template
    return Tokenizer(hf)


@pytest.mark.parametrize("prompt", ["What is the first step?", "  two\n\nlines \n", "ünï <b>"])
def test_a_prompt_is_what_transformers_makes_of_it(chat_tokenizer, prompt):
    reference = chat_tokenizer.hf.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
    )
    assert chat.encode_prompt(chat_tokenizer, prompt) == reference


@given(HOSTILE)
def test_control_tokens_come_from_the_template_alone(chat_tokenizer, prompt):
    ids = chat.encode_prompt(chat_tokenizer, prompt)
    added = chat_tokenizer.hf.added_tokens_decoder
    names = [added[i].content for i in ids if i in added]
    turn = ["<|start_header_id|>", "<|end_header_id|>"]
    assert names == ["<|begin_of_text|>", *turn, "<|eot_id|>", *turn]
    assert ids[0] == chat_tokenizer.hf.bos_token_id
    assert prompt.strip() in chat_tokenizer.decode(ids)


CHANGES = [" | upper", " | replace('e', 'E')", " | e", " | replace('\\n\\n', '\\n')", "[:30]"]


@pytest.mark.parametrize("change", ["", " | trim", *CHANGES])
def test_templates_may_change_the_text_around_but_get_ours_as_it_is(chat_tokenizer, change):
    template = "<|start_header_id|>{{ messages[0]['content']" + change + " }}<|eot_id|>"
    tokenizer = with_template(chat_tokenizer, template)
    if change in CHANGES:
        with pytest.raises(UserError, match="must contain the user's text"):
            chat.encode_prompt(tokenizer, "step")
    else:
        assert tokenizer.decode(chat.encode_prompt(tokenizer, " step ")) == "step"


def test_a_template_without_bos_gets_none(chat_tokenizer):
    tokenizer = with_template(chat_tokenizer, "{{ messages[0]['content'] }}")
    ids = chat.encode_prompt(tokenizer, "step")
    assert ids == tokenizer.encode_text("step")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "no chat template"),
        ("nothing of the user", "must contain the user's text"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "must contain"),
        (
            "{% if 'fox' in messages[0]['content'] %}FOX {% endif %}{{ messages[0]['content'] }}",
            "write the same around any text",
        ),
        (
            "{{ messages[0]['content'] | length }} {{ messages[0]['content'] }}",
            "write the same around any text",
        ),
        ("{{ raise_exception('only with a system turn') }}", "only with a system turn"),
        ("{% if %}", "chat template of the tokenizer fails"),
    ],
)
def test_a_template_that_cannot_serve_is_a_clear_error(chat_tokenizer, template, reason):
    with pytest.raises(UserError, match=reason):
        chat.encode_prompt(with_template(chat_tokenizer, template), "step")


@pytest.mark.parametrize(
    ("template", "system", "reason"),
    [
        ("{{ messages[1]['content'] }} {{ messages[0]['content'] }}", "a", "system's text exactly"),
        ("{{ messages[0]['content'] | upper }}{{ messages[1]['content'] }}", "a", "around any"),
        (
            "{% if messages[0]['content'] %}S: {{ messages[0]['content'] }}{% endif %}"
            "{{ messages[-1]['content'] }}",
            "",
            "also where system is empty",
        ),
    ],
)
def test_the_system_turn_stands_before_the_users_and_as_it_is(
    chat_tokenizer, template, system, reason
):
    hf = copy.deepcopy(chat_tokenizer.hf)
    hf.chat_template = template
    with pytest.raises(UserError, match=reason):
        chat.encode_prompt(Tokenizer(hf, chat=ChatSettings(system)), "step")


def test_an_added_token_may_be_a_word_of_the_prompt(chat_tokenizer):
    hf = copy.deepcopy(chat_tokenizer.hf)
    hf.add_tokens([AddedToken(word, special=False) for word in ("user", "text", " ")])
    tokenizer = Tokenizer(hf)
    assert "some user text" in tokenizer.hf.decode(chat.encode_prompt(tokenizer, "some user text"))


def test_a_vocabulary_need_not_know_the_characters_of_a_placeholder():
    words = ["<unk>", "</s>", "step"]
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    hf.chat_template = "</s>{{ messages[0]['content'] }}</s>"
    add_tags(hf)
    assert chat.encode_prompt(Tokenizer(hf), "step") == [1, 2, 1]
    assert chat.encode_prompt(Tokenizer(hf), "</s>") == [1, 0, 1]


def test_an_answer_ends_once(chat_tokenizer):
    text = steps.format_answer([("Look", "a list")], "three")
    ids = chat.encode_answer(chat_tokenizer, text)
    assert ids[-1] == chat_tokenizer.eos_id
    assert ids.count(chat_tokenizer.eos_id) == 1
    assert chat_tokenizer.decode(ids) == text
