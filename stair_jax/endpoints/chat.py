"""Requests to an endpoint and their completions; the body of a call, and its identity."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_jax import storage
from stair_jax.endpoints.settings import ChatSampling, EndpointSettings
from stair_jax.errors import UserError

ChatFinish = Literal["stop", "length", "content_filter", "too_long", "missing"]

_MAX_TOP_LOGPROBS = 20  # of the OpenAI API
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKENS_A_MESSAGE = 16  # of the chat template, at most: role, marks, line ends
_BYTES_A_TOKEN = 4.0  # of English text, for estimates


@dataclass(frozen=True)
class ChatRequest:
    """Messages to which an endpoint writes the next one.

    Attributes:
      id: identifies the completion.
      messages: {role, content} each, and what else the endpoint knows of; contents are text.
      service: name of the service that it is for.
      sampling: how to sample; None: as the settings of the endpoint say.
      sample: number of the sample: requests that differ in it alone are asked apart. Two requests
        that are the same, this number included, are one call with one reply.
      top_logprobs: how many alternatives of each token are returned with their log-probabilities,
        at most 20; 0: none.
      priority: the lowest goes first.
    """

    id: Hashable
    messages: tuple[Mapping[str, Any], ...]
    service: str = "endpoint"
    sampling: ChatSampling | None = None
    sample: int = 0
    top_logprobs: int = 0
    priority: int = 0

    def __post_init__(self) -> None:
        """Checks the request.

        Raises:
          UserError: there are no messages, one has no text, or `top_logprobs` is out of range.
        """
        object.__setattr__(self, "messages", tuple(self.messages))
        if not self.messages:
            raise UserError(f"request {self.id!r} has no messages: give it at least one")
        for message in self.messages:
            if not all(isinstance(message.get(name), str) for name in ("role", "content")):
                raise UserError(f"request {self.id!r}: each message needs a role and a content")
        if not 0 <= self.top_logprobs <= _MAX_TOP_LOGPROBS:
            raise UserError(
                f"top_logprobs must be from 0 to {_MAX_TOP_LOGPROBS}, not {self.top_logprobs}"
            )


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the endpoint counts them.

    Attributes:
      input_tokens: of the messages.
      output_tokens: sampled, reasoning included.
    """

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class ChatCompletion:
    """The result of one request.

    Attributes:
      id: the id of the request.
      text: of the reply; what is not Unicode text in it is replaced.
      finish: "stop", "length" (`max_tokens` was reached), "content_filter" (the endpoint refused
        for what the messages or the reply say), "too_long" (the messages leave no room in the
        model's context), or "missing" (all tries failed; it is asked again after a restart).
      usage: tokens of the call.
      cost: money for the call.
      reasoning: text that the model wrote before the reply, where the endpoint shows it.
      top_logprobs: for each token of the reply the most probable tokens (text: log-probability);
        empty unless asked for and sent.
      from_log: whether the reply was paid for before, by this run or an earlier start.
      model: that the endpoint says has answered; "": it does not say.
      date: on which the reply was written, in UTC, as YYYY-MM-DD; "": not known.
    """

    id: Hashable
    text: str = ""
    finish: ChatFinish = "stop"
    usage: Usage = Usage()
    cost: float = 0.0
    reasoning: str = ""
    top_logprobs: tuple[Mapping[str, float], ...] = ()
    from_log: bool = False
    model: str = ""
    date: str = ""


def request_body(request: ChatRequest, settings: EndpointSettings) -> dict[str, Any]:
    """The JSON body of a call to `/chat/completions`."""
    sampling = request.sampling or settings.sampling
    body: dict[str, Any] = dict(settings.extra_body)
    body["model"] = settings.model
    body["messages"] = [
        {name: clean_text(value) if isinstance(value, str) else value for name, value in m.items()}
        for m in request.messages
    ]
    body[settings.max_tokens_field] = sampling.max_tokens
    for name in ("temperature", "top_p"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = (sampling.seed + request.sample) % 2**31
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    plain: dict[str, Any] = storage.plain(body)
    return plain


def identity(body: Mapping[str, Any], endpoint: str, sample: int) -> str:
    """SHA-256 (hex) of a call: canonical body, endpoint and number of the sample."""
    return storage.fingerprint({"body": body, "endpoint": endpoint, "sample": sample})


def most_usage(request: ChatRequest, settings: EndpointSettings) -> Usage:
    """The most tokens that a call can use: a token of text has at least one byte."""
    count = sum(len(m["content"].encode(errors="replace")) for m in request.messages)
    count += _TOKENS_A_MESSAGE * (len(request.messages) + 1)
    return Usage(count, (request.sampling or settings.sampling).max_tokens)


def estimated_input(request: ChatRequest) -> int:
    """About how many tokens the messages have, at four bytes a token."""
    count = sum(len(m["content"].encode(errors="replace")) for m in request.messages)
    return round(count / _BYTES_A_TOKEN) + 4 * len(request.messages)


def clean_text(text: str) -> str:
    """`text` with U+FFFD in place of lone surrogates, which are no Unicode text."""
    return _SURROGATE.sub("\ufffd", text)
