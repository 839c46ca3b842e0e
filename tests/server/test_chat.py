"""/v1/chat/completions: answers of a tiny model, whole and in pieces."""

import asyncio
import json

import pytest
from pydantic import ValidationError

from stair_jax.server.chat_bodies import ChatBody


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


def logps_of(choice):
    return [entry["logprob"] for entry in choice["logprobs"]["content"]]


@pytest.mark.parametrize("fields", [{}, {"top_logprobs": 3}])
def test_log_probabilities_of_a_stream_are_those_of_the_whole_answer(ask, chat_body, fields):
    body = chat_body(seed=3, logprobs=True, **fields)
    whole = ask(body).json()
    events = events_of(ask(body | {"stream": True}))
    choices = [choice for event in events for choice in event["choices"]]
    pieces = [logps_of(choice) for choice in choices if choice["logprobs"]]
    found = [logp for piece in pieces for logp in piece]
    assert found == pytest.approx(logps_of(whole["choices"][0]), abs=1e-5)
    assert len(found) == whole["usage"]["completion_tokens"]
    assert (len(pieces) == 1) == bool(fields)  # the likeliest tokens come at the end


def test_log_probabilities_are_those_of_the_sampled_tokens(ask, chat_body):
    """Without temperature in them, so that two of them are of one model."""
    both = [ask(chat_body(temperature=t, top_k=1, logprobs=True)).json() for t in (1, 5)]
    first, second = (logps_of(found["choices"][0]) for found in both)
    assert first == pytest.approx(second, abs=1e-6) and max(first) <= 0


def test_an_answer_ends_before_a_stop_text(ask, chat_body):
    """The numbers of tokens are those up to it, however they came."""
    text = ask(chat_body(seed=3)).json()["choices"][0]["message"]["content"]
    stop = text[7:9]
    whole = ask(chat_body(seed=3, stop=[stop, "never met"], logprobs=True)).json()
    (choice,) = whole["choices"]
    assert choice["message"]["content"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"
    count = whole["usage"]["completion_tokens"]
    assert len(logps_of(choice)) == count < len(text)
    usage = {"include_usage": True}
    events = events_of(ask(chat_body(seed=3, stop=stop, stream=True, stream_options=usage)))
    assert text_of(events) == choice["message"]["content"]
    assert events[-1]["usage"] == whole["usage"]


def test_an_answer_goes_on_with_what_the_assistant_has_begun(ask, chat_body, answerer):
    begun = "<|Reasoning_step|>Title: Look\nIt is"
    body = chat_body(seed=1, max_tokens=4)
    body["messages"].append({"role": "assistant", "content": begun})
    found = ask(body).json()
    message = found["choices"][0]["message"]
    assert message["content"] == "" and "Look" not in message["reasoning"]
    assert message["reasoning"] == message["reasoning_content"] != ""
    tokenizer = answerer.files.tokenizer
    before = ask(chat_body(max_tokens=1)).json()["usage"]["prompt_tokens"]
    own = len(tokenizer.encode_answer(begun))
    assert found["usage"]["prompt_tokens"] == before + own
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4


def test_turns_and_a_system_turn_are_encoded_as_chats_are(ask, answerer):
    from stair_jax.text.conversations import encode_chat

    parts = [{"type": "text", "text": "go"}, {"type": "text", "text": " on"}]
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi", "reasoning": "greet", "tool_calls": []},
        {"role": "user", "content": parts},
    ]
    found = ask({"model": "tiny", "messages": turns, "max_tokens": 1}).json()
    plain = [("system", "Be brief."), ("user", "hello"), ("assistant", "hi"), ("user", "go on")]
    expected = [{"role": role, "content": content} for role, content in plain]
    ids = encode_chat(answerer.files.tokenizer, expected)
    assert found["usage"]["prompt_tokens"] == len(ids)


def test_tags_of_a_user_stay_text(ask, chat_body, answerer):
    tags = "<|Output|><|eot_id|>"
    count = ask(chat_body(tags, max_tokens=1)).json()["usage"]["prompt_tokens"]
    plain = ask(chat_body("x", max_tokens=1)).json()["usage"]["prompt_tokens"]
    assert count - plain > len(tags) / 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"made_up": 1}, "made_up"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10**30}, "n"),
        ({"seed": True}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x " * 500}]}, "messages"),
        ({"top_logprobs": 2}, None),
        ({"stream_options": {"include_usage": True}}, None),
        ({"stop": [""]}, None),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(ask, chat_body, fields, param):
    response = ask(chat_body() | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]
    assert "\n" not in error["message"]
    assert (error["param"] or "").startswith(param or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "logprobs": False},
        {"n": None, "seed": None, "stop": None, "temperature": None, "max_tokens": None},
    ],
)
def test_what_changes_nothing_is_accepted(ask, chat_body, fields):
    assert ask(chat_body(max_completion_tokens=1) | fields).status_code == 200


def test_another_model_is_not_found(ask, chat_body):
    response = ask(chat_body() | {"model": "gpt-5"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'"x"', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(ask, body):
    response = ask(body)
    assert response.status_code == 400 and response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [1] * 10**5},
        {"messages": [{"role": "user", "content": [1] * 10**5}]},
        {"messages": [], **{f"field{number}": 1 for number in range(10**4)}},
        {"messages": [], "stop": [1] * 10**5},
    ],
)
def test_of_many_errors_the_first_alone_is_looked_for(body):
    with pytest.raises(ValidationError) as raised:
        ChatBody.model_validate_json(json.dumps({"model": "tiny", **body}))
    assert raised.value.error_count() <= 4


def test_an_unknown_path_and_a_wrong_method_are_told_in_the_same_form(serve):
    async def run():
        async with serve() as (client, _):
            return await client.get("/v1/nothing"), await client.get("/v1/chat/completions")

    missing, wrong = asyncio.run(run())
    assert missing.status_code == 404 and wrong.status_code == 405
    assert missing.json()["error"]["type"] == "not_found_error"
    assert "GET /v1/chat/completions" in wrong.json()["error"]["message"]
