"""/v1/responses: one answer in text, whole and in pieces, as the client of OpenAI reads it."""

import json

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from stair_jax.server.reasoning import Delta
from stair_jax.server.response_answers import _Items

PATH = "/v1/responses"


def body(given="hello", **fields):
    return {"model": "tiny", "input": given, **fields}


def events_of(response):
    blocks = [block for block in response.text.split("\n\n") if block]
    found = []
    for block in blocks:
        name, data = block.split("\n", 1)
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def test_an_answer_has_the_form_of_openai(ask):
    found = ask(body(seed=1), PATH).json()
    response = Response.model_validate(found)
    assert response.output_text
    assert response.status == ("incomplete" if response.incomplete_details else "completed")
    assert found["usage"]["total_tokens"] == (
        found["usage"]["input_tokens"] + found["usage"]["output_tokens"]
    )
    assert found["store"] is False


def test_it_is_the_answer_of_a_chat(ask, chat_body):
    chat = ask(chat_body(seed=1)).json()["choices"][0]["message"]["content"]
    assert Response.model_validate(ask(body(seed=1), PATH).json()).output_text == chat
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    assert Response.model_validate(ask(body(turns, seed=1), PATH).json()).output_text == chat


def test_a_stream_gives_the_same_answer_in_events_of_openai(ask):
    whole = ask(body(seed=2), PATH).json()
    events = events_of(ask(body(seed=2, stream=True), PATH))
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == f"response.{whole['status']}"
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text == Response.model_validate(whole).output_text
    assert events[-1]["response"]["usage"] == whole["usage"]


def test_a_short_answer_is_incomplete(ask):
    found = ask(body(seed=1, max_output_tokens=2), PATH).json()
    assert found["status"] == "incomplete"
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["usage"]["output_tokens"] == 2


def test_reasoning_is_an_item_of_its_own():
    items = _Items("x")
    names = [name for name, _ in items.add(Delta("Title: A\nb", ""))]
    names += [name for name, _ in items.add(Delta("", "four"))]
    names += [name for name, _ in items.end()]
    assert names == [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    reasoning, message = items.finished
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Title: A\nb"}]
    assert message["content"][0]["text"] == "four" and message["role"] == "assistant"


def test_an_earlier_answer_is_a_turn_and_its_reasoning_is_not_read(ask):
    turns = [
        {"role": "user", "content": "hello"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "hi", "annotations": []}]},
        {"role": "user", "content": "go on"},
    ]  # fmt: skip
    without = [turn for turn in turns if turn.get("type") != "reasoning"]
    assert (
        ask(body(turns, seed=1), PATH).json()["output"][0]["content"]
        == (ask(body(without, seed=1), PATH).json()["output"][0]["content"])
    )


def test_reasoning_that_a_last_turn_has_begun_is_counted_as_such(ask):
    begun = {"role": "assistant", "content": "<|Reasoning_step|>Title: Look\nIt is"}
    turns = [{"role": "user", "content": "hello"}, begun]
    usage = ask(body(turns, seed=1, max_output_tokens=4), PATH).json()["usage"]
    assert usage["output_tokens_details"]["reasoning_tokens"] == usage["output_tokens"] == 4


def test_a_search_answers_too(ask_guided):
    fields = {"model": "tiny:best-of-2", "search": {"details": True}}
    found = ask_guided(body(seed=1) | fields, PATH).json()
    assert len(found["search"]["candidates"]) == 2
    assert found["usage"]["output_tokens"] > found["usage"]["output_tokens_details"]["kept_tokens"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text"),
        ({"stop": "a"}, "stop"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"reasoning": {"effort": ["high"]}}, "reasoning"),
        ({"input": []}, "messages"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_would_be_dropped_is_refused(ask, fields, name):
    response = ask(body() | fields, PATH)
    assert response.status_code == 400 and name in response.json()["error"]["message"]
