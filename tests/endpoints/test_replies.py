"""Replies are read from bytes of any kind: a reply, or a `BadReply`, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.replies import BadReply, Reply, error_of, read_reply
from stair_jax.testing.fake_endpoint import reply_of

BODY = {"messages": [{"role": "user", "content": "hi"}]}


def bytes_of(**changes):
    """A good reply with other fields."""
    return json.dumps({**reply_of(BODY), **changes}).encode()


def choice(content="yes", finish="stop", **more):
    return [{"message": {"content": content}, "finish_reason": finish, **more}]


def test_a_good_reply_is_read():
    reply = read_reply(
        bytes_of(choices=choice(), usage={"prompt_tokens": 7, "completion_tokens": 2})
    )
    assert reply == Reply("yes", "stop", Usage(7, 2), model="fake")
    assert read_reply(bytes_of(created=1_700_000_000)).date == "2023-11-14"


@pytest.mark.parametrize("created", [None, "1700000000", 0, -5, 1.5, True, 10**30, [1]])
def test_a_day_that_is_none_is_not_told(created):
    assert read_reply(bytes_of(created=created)).date == ""


@pytest.mark.parametrize("model", [None, 7, ["fake"]])
def test_a_name_that_is_none_is_not_told(model):
    assert read_reply(bytes_of(model=model)).model == ""


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
    ],
)
def test_reasons_to_end_are_those_of_completions(said, finish):
    assert read_reply(bytes_of(choices=choice(finish=said))).finish == finish


def test_reasoning_and_refusals_are_found_where_servers_put_them():
    message = {"content": "4", "reasoning_content": "2 + 2"}
    body = bytes_of(choices=[{"message": message, "finish_reason": "stop"}])
    assert read_reply(body).reasoning == "2 + 2"
    message = {"content": None, "refusal": "No.", "reasoning": ""}
    body = bytes_of(choices=[{"message": message, "finish_reason": "stop"}])
    assert read_reply(body).text == "No."


def test_an_empty_text_is_a_reply():
    """A model that reasons up to its limit has none."""
    assert read_reply(bytes_of(choices=choice(None, "length"))).text == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        bytes_of()[:-20],
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[]",
        b'"text"',
        b"1" * 5000,
        b"{}",
        bytes_of(choices=[]),
        bytes_of(choices=None),
        bytes_of(choices={"0": 1}),
        bytes_of(choices=["text"]),
        bytes_of(choices=[{"finish_reason": "stop"}]),
        bytes_of(choices=[{"message": "text", "finish_reason": "stop"}]),
        bytes_of(choices=choice(content=7)),
        bytes_of(choices=choice(content=["parts"])),
        bytes_of(choices=choice(finish=None)),
        bytes_of(choices=choice(finish=3)),
    ],
)
def test_what_is_no_reply_is_refused(body):
    with pytest.raises(BadReply, match=r"^a reply"):
        read_reply(body)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**30},
    ],
)
def test_a_usage_that_cannot_be_is_none(usage):
    reply = read_reply(bytes_of(choices=choice(), usage=usage))
    assert reply.usage is None and reply.text == "yes"


def test_lone_surrogates_become_replacement_characters():
    body = bytes_of(choices=choice("XX")).replace(b"XX", b"a\\ud800b \\ud83d\\ude00")
    assert read_reply(body).text == "a\ufffdb \U0001f600"


def test_log_probabilities_are_read_by_place_and_token():
    places = [
        {
            "token": "A",
            "top_logprobs": [{"token": "A", "logprob": -0.5}, {"token": "B", "logprob": -1}],
        },
        {
            "token": ".",
            "top_logprobs": [{"token": ".", "logprob": 0}, {"token": ".", "logprob": -9}],
        },
    ]
    reply = read_reply(bytes_of(choices=choice(logprobs={"content": places})))
    assert reply.top_logprobs == ({"A": -0.5, "B": -1.0}, {".": 0.0})


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        {"content": None},
        {"content": [None]},
        {"content": [{"top_logprobs": None}]},
        {"content": [{"top_logprobs": [None]}]},
        {"content": [{"top_logprobs": [{"token": 1, "logprob": -1}]}]},
        {"content": [{"top_logprobs": [{"token": "A", "logprob": "-1"}]}]},
        {"content": [{"top_logprobs": [{"token": "A", "logprob": float("nan")}]}]},
        {"content": [{"top_logprobs": [{"token": "A", "logprob": 3.0}]}]},
        {"content": [{"top_logprobs": [{"token": "A", "logprob": -(10**400)}]}]},
    ],
)
def test_malformed_log_probabilities_are_none_and_the_reply_counts(logprobs):
    reply = read_reply(bytes_of(choices=choice(logprobs=logprobs)))
    assert reply.top_logprobs == () and reply.text == "yes"


NAMES = (
    *("choices", "message", "content", "finish_reason", "logprobs", "top_logprobs"),
    *("usage", "prompt_tokens", "token", "logprob", "error", "code"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(value=JSON)
def test_any_json_is_a_reply_or_refused(value):
    body = json.dumps(value).encode()
    try:
        assert isinstance(read_reply(body).text, str)
    except BadReply as error:
        assert "\n" not in str(error)
    code, message = error_of(body)
    assert isinstance(code, str) and isinstance(message, str)


def test_errors_are_read_in_the_forms_that_servers_write():
    assert error_of(b'{"error": {"code": "x", "message": "m"}}') == ("x", "m")
    assert error_of(b'{"error": {"code": null, "type": "t", "message": "m"}}') == ("t", "m")
    assert error_of(b'{"object": "error", "message": "m", "code": 400}') == ("", "m")
    assert error_of(b'{"error": "m"}') == ("", "m")
    assert error_of(b"<html>") == error_of(b'{"error": [1]}') == ("", "")
