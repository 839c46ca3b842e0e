"""Replies of an endpoint, read from bytes that nobody vouches for."""

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from stair_jax.endpoints.chat import ChatFinish, Usage, clean_text
from stair_jax.settings_rules import LARGEST_WHOLE

# What servers say in `finish_reason`; any other text counts as "stop".
_FINISHES: Mapping[str, ChatFinish] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}

_LONGEST_NAME = 200  # characters of a model's name
_LATEST = 2**36  # seconds since 1970: in the year 4147


class BadReply(Exception):
    """A body that is no reply; the text says why."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered; the fields are those of `ChatCompletion`.

    Attributes:
      text: see there.
      finish: see there, never "missing".
      usage: None: not told, or not in whole numbers.
      reasoning: see there.
      top_logprobs: see there.
      model: see there.
      date: see there; "": not told.
    """

    text: str
    finish: ChatFinish
    usage: Usage | None = None
    reasoning: str = ""
    top_logprobs: tuple[Mapping[str, float], ...] = ()
    model: str = ""
    date: str = ""


def read_reply(body: bytes) -> Reply:
    """The first choice of a chat completion.

    Raises:
      BadReply: it is not JSON, or has no choice with a message and a reason why it ended.
    """
    return reply_of(read_json(body))


def reply_of(value: Mapping[str, Any]) -> Reply:
    """As `read_reply`, of a body that is read."""
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise BadReply("a reply without a choice")
    choice = choices[0]
    message, finish = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, Mapping) or not isinstance(finish, str):
        raise BadReply("a reply without a message or without finish_reason")
    return Reply(
        _text(message, "content", "refusal"),
        _FINISHES.get(finish, "stop"),
        _usage(value.get("usage")),
        _text(message, "reasoning_content", "reasoning"),
        _top_logprobs(choice.get("logprobs")),
        _name(value.get("model")),
        _day(value.get("created")),
    )


def error_of(body: bytes) -> tuple[str, str]:
    """(code, message) of the body of an error; "" for what it does not say."""
    try:
        return error_in(read_json(body))
    except BadReply:
        return "", ""


def error_in(value: Mapping[str, Any]) -> tuple[str, str]:
    """As `error_of`, of a body that is read."""
    error = value.get("error", value)
    if isinstance(error, str):
        return "", clean_text(error)
    if not isinstance(error, Mapping):
        return "", ""
    code = error.get("code") or error.get("type")
    message = error.get("message")
    return (
        clean_text(code) if isinstance(code, str) else "",
        clean_text(message) if isinstance(message, str) else "",
    )


def read_json(body: bytes) -> Mapping[str, Any]:
    """The JSON object that a body is.

    Raises:
      BadReply: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadReply("a reply that is not JSON") from error
    if not isinstance(value, Mapping):
        raise BadReply("a reply that is no JSON object")
    return value


def _text(message: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds text; None and absent fields are passed over.

    Raises:
      BadReply: one holds something else.
    """
    for name in names:
        value = message.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise BadReply(f"a reply whose {name} is no text")
        return clean_text(value)
    return ""


def _name(value: Any) -> str:
    """The name of a model; "" for what is none."""
    return clean_text(value)[:_LONGEST_NAME] if isinstance(value, str) else ""


def _day(value: Any) -> str:
    """The day of a time in seconds since 1970, in UTC; "" for what is none."""
    if type(value) is not int or not 0 < value < _LATEST:
        return ""
    return datetime.datetime.fromtimestamp(value, datetime.UTC).date().isoformat()


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, Mapping):
        return None
    counts = [value.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(count) is int and 0 <= count <= LARGEST_WHOLE for count in counts):
        return None
    return Usage(*counts)  # type: ignore[arg-type]


def _top_logprobs(value: Any) -> tuple[Mapping[str, float], ...]:
    """() for anything that has not the form of the API: not worth another call."""
    places = value.get("content") if isinstance(value, Mapping) else None
    if not isinstance(places, list):
        return ()
    found = tuple(_alternatives(place) for place in places)
    return tuple(place for place in found if place) if all(found) else ()


def _alternatives(place: Any) -> dict[str, float]:
    """Token to log-probability at one place; {} if it is malformed."""
    if not isinstance(place, Mapping):
        return {}
    rows = place.get("top_logprobs")
    logps: dict[str, float] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping):
            return {}
        token, logp = row.get("token"), row.get("logprob")
        if not isinstance(token, str) or not _is_logp(logp):
            return {}
        text = clean_text(token)
        # Tokens of different bytes may be the same text: the most probable one counts.
        logps[text] = max(float(logp), logps.get(text, -math.inf))
    return logps


def _is_logp(value: Any) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # Rounding may lift a certain token a little above 0; servers write -9999 for "never".
    return -1e6 <= value <= 1e-3
