"""Inspect's settings of a generation, and its messages, as ours."""

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai, of the extra eval, is not installed")

from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
)

from stair_jax.adapters import inspect_config
from stair_jax.adapters.inspect_config import read_config
from stair_jax.adapters.inspect_messages import content_of, messages_of
from stair_jax.errors import UserError
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.text import steps

ANSWER = steps.format_answer([("Analysis", "It is a sum.\nOf two."), ("Sum", "2 + 2")], "4")


def test_nothing_that_is_left_open_changes_the_model_s_own_settings():
    settings = AnswerSettings(method="sample", temperature=0.3, seed=5)
    asking = read_config(GenerateConfig(), settings)
    assert (asking.settings, asking.stop_seqs, asking.num_choices) == (settings, (), 1)


def test_a_greedy_answer_with_a_temperature_is_sampled_from_the_whole_distribution():
    config = GenerateConfig(temperature=0.7, max_tokens=9, seed=3, stop_seqs=["x"], num_choices=2)
    asking = read_config(config, AnswerSettings())
    found = asking.settings
    assert (found.method, found.temperature, found.top_p, found.top_k) == ("sample", 0.7, 1.0, 0)
    assert (found.max_answer_tokens, found.seed) == (9, 3)
    assert (asking.stop_seqs, asking.num_choices) == (("x",), 2)
    narrow = read_config(GenerateConfig(temperature=0.7, top_k=4), AnswerSettings()).settings
    assert (narrow.top_k, narrow.top_p) == (4, 1.0)


def test_a_search_takes_temperature_and_length_and_keeps_its_method():
    settings = AnswerSettings(method="best_of_n")
    found = read_config(GenerateConfig(temperature=0.9, max_tokens=50), settings).settings
    assert (found.method, found.temperature, found.top_k) == ("best_of_n", 0.9, 50)
    assert (found.max_answer_tokens, found.max_step_tokens) == (50, 50)
    with pytest.raises(UserError, match="stop_seqs would cut what best_of_n has chosen"):
        read_config(GenerateConfig(stop_seqs=["\n"]), settings)


@pytest.mark.parametrize(
    "field",
    [
        {"logprobs": True},
        {"logit_bias": {3: 1.0}},
        {"frequency_penalty": 0.5},
        {"best_of": 2},
        {"extra_body": {"a": 1}},
    ],
)
def test_what_would_change_the_answer_and_is_not_there_is_refused_by_name(field):
    with pytest.raises(UserError, match=f"have no {next(iter(field))}"):
        read_config(GenerateConfig(**field), AnswerSettings())


def test_values_that_change_nothing_are_taken():
    config = GenerateConfig(frequency_penalty=0.0, best_of=1, logprobs=False, max_connections=4)
    assert read_config(config, AnswerSettings()).settings == AnswerSettings()


def test_hints_are_said_to_have_no_effect_once(capsys, monkeypatch):
    monkeypatch.setattr(inspect_config, "_said", set())
    for _ in range(3):
        read_config(GenerateConfig(reasoning_effort="high", top_p=0.5), AnswerSettings())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "top_p and top_k change nothing about greedy answers" in lines[0] + lines[1]
    assert "know no reasoning_effort" in lines[0] + lines[1]


def test_every_field_of_inspect_is_heeded_or_said():
    """None is dropped in silence, also of those that a later version adds."""
    known = inspect_config._HEEDED | inspect_config._OF_INSPECT | inspect_config._HINTS
    for name in set(GenerateConfig.model_fields) - known:
        config = GenerateConfig.model_construct(**{name: "set"})
        with pytest.raises(UserError, match=f"have no {name}"):
            read_config(config, AnswerSettings())


def test_steps_are_reasoning_and_the_final_answer_is_the_text():
    *thoughts, final = content_of(ANSWER)
    assert [part.reasoning for part in thoughts] == [
        "Title: Analysis\nIt is a sum.\nOf two.",
        "Title: Sum\n2 + 2",
    ]
    assert final.text == "4"


def test_an_answer_that_was_cut_in_a_step_has_no_text():
    first, final = content_of(ANSWER[: ANSWER.index("sum.")])
    assert (first.reasoning, final.text) == ("Title: Analysis\nIt is a", "")


def test_an_answer_without_tags_is_text_as_it_is():
    assert content_of(" So:\nFinal Answer: 4 ") == "So:\nFinal Answer: 4"


def test_the_reasoning_of_earlier_turns_comes_back_as_it_was_written():
    chat = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="2 + 2?"),
        ChatMessageAssistant(content=content_of(ANSWER)),
        ChatMessageUser(content=[ContentText(text="And "), ContentText(text="3 + 3?")]),
    ]
    assert messages_of(chat) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And 3 + 3?"},
    ]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (ChatMessageAssistant(content="Sure"), "must be the user's"),
        (ChatMessageTool(content="4"), "call no tools"),
        (ChatMessageUser(content=[ContentImage(image="data:image/png;base64,")]), "holds image"),
    ],
)
def test_what_our_models_do_not_know_is_refused(last, reason):
    with pytest.raises(UserError, match=reason):
        messages_of([ChatMessageUser(content="2 + 2?"), last])


def test_an_empty_chat_is_refused():
    with pytest.raises(UserError, match="empty"):
        messages_of([])


def test_a_thought_of_another_model_becomes_a_step():
    message = ChatMessageAssistant(
        content=[ContentReasoning(reasoning="It adds."), ContentText(text="4")]
    )
    chat = [ChatMessageUser(content="a"), message, ChatMessageUser(content="b")]
    assert steps.parse_tolerant(messages_of(chat)[1]["content"]).final == "4"
