"""/v1/chat/completions: answers of a tiny model, whole and in pieces."""

import json

import pytest


def events_of(response):
    """The JSON values of a stream, which ends with [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *lines, last = [line for line in response.text.split("\n\n") if line]
    assert last == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def text_of(events, number=0):
    """The content of an answer that came in pieces."""
    choices = [choice for event in events for choice in event["choices"]]
    deltas = [choice["delta"] for choice in choices if choice["index"] == number]
    return "".join(delta.get("content", "") for delta in deltas)


def test_an_answer_has_the_form_of_openai(ask, chat_body):
    found = ask(chat_body(seed=1)).json()
    assert found["object"] == "chat.completion" and found["model"] == "tiny"
    (choice,) = found["choices"]
    assert choice["index"] == 0 and choice["finish_reason"] in ("stop", "length")
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_gives_the_same_text_as_a_whole_answer(ask, chat_body):
    whole = ask(chat_body(seed=3, n=2)).json()
    events = events_of(
        ask(chat_body(seed=3, n=2, stream=True, stream_options={"include_usage": True}))
    )
    for number in range(2):
        assert text_of(events, number) == whole["choices"][number]["message"]["content"]
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    assert len(events) > 6


def test_a_seed_repeats_an_answer_and_none_does_not(ask, chat_body):
    def say(**fields):
        return ask(chat_body(**fields)).json()["choices"][0]["message"]["content"]

    assert say(seed=5) == say(seed=5) != say(seed=6)
    assert say() != say()


def test_the_answers_to_one_request_differ(ask, chat_body):
    choices = ask(chat_body(seed=1, n=4)).json()["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 4


def test_temperature_zero_is_greedy(ask, chat_body):
    choices = ask(chat_body(n=2, temperature=0)).json()["choices"]
    assert choices[0]["message"] == choices[1]["message"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_where_the_request_says(ask, chat_body, name):
    found = ask(chat_body(seed=1, **{name: 3})).json()
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 3
