"""Fuzzed requests to the server: bodies that are almost right, and bytes that are nothing."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from soak.fuzz import draw_text
from stair_jax.text.steps import TAGS

MODEL = "tiny"
_NAMES = (*TAGS, "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>")
_MODELS = (
    *(MODEL, f"{MODEL}:best-of-2", f"{MODEL}:beam-1x2", f"{MODEL}:dvts-2x1", "other", ""),
    *(f"{MODEL}:best-of-2-self-reward", f"{MODEL}:best-of-0", f"{MODEL}:beam-9999x9999"),
)
_TURNS = ("user", "user", "user", "assistant", "system", "developer", "tool", "")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e308, 2**31, 2**63, 2**64, 10**40),
    *("", "a", "0", "null", "\x00", [], {}, [None], [[]], {"": None}, {"type": "text"}, [{}]),
)
_FIELDS = (
    *("model", "messages", "prompt", "input", "max_tokens", "max_completion_tokens", "temperature"),
    *("top_p", "top_k", "n", "seed", "stop", "stream", "stream_options", "logprobs", "echo"),
    *("top_logprobs", "search", "priority", "tools", "response_format", "logit_bias", "tokens"),
    *("answer", "instructions", "max_output_tokens", "add_special_tokens", "user", "__proto__"),
)
_MOST_DEPTH = 400
# By route, the field that limits the tokens of an answer.
_LENGTHS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
_LONG_TOKENS = 60


class Drawn(NamedTuple):
    """A request.

    Attributes:
      method: of HTTP.
      path: of the route.
      body: its bytes.
    """

    method: str
    path: str
    body: bytes


def draw_request(rng: random.Random) -> Drawn:
    """A random request."""
    path = rng.choice(list(_MAKERS))
    method = "POST" if rng.random() < 0.98 else rng.choice(("GET", "PUT", "DELETE", "HEAD"))
    kind = rng.random()
    if kind < 0.1:
        return Drawn(method, path, _bytes(rng))
    body: Any = _MAKERS[path](rng)
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
        body = _changed(rng, body)
    written = json.dumps(body).encode()
    if kind < 0.2:
        written = _broken(rng, written)
    return Drawn(method, path, written)


def draw_long(rng: random.Random) -> Drawn:
    """A request as it should be whose answer takes a while."""
    path = rng.choice(list(_LENGTHS) + ["/v1/chat/completions"] * 2)
    body = _MAKERS[path](rng) | {"stream": rng.random() < 0.7, _LENGTHS[path]: _LONG_TOKENS}
    return Drawn("POST", path, json.dumps(body).encode())


def _chat(rng: random.Random) -> dict[str, Any]:
    """The body of a chat as it should be, but for what is said in it."""
    turns = [
        {"role": rng.choice(_TURNS[:5]), "content": _text(rng)} for _ in range(rng.randint(1, 3))
    ]
    return {
        "model": rng.choice(_MODELS[:4]) if rng.random() < 0.3 else MODEL,
        "messages": [*turns, {"role": "user", "content": _text(rng)}],
        "max_tokens": rng.randint(1, 8),
        **_some(
            rng,
            temperature=rng.choice((0, 0.5, 1)),
            n=rng.randint(1, 3),
            stream=True,
            seed=rng.randrange(9),
            logprobs=True,
            stop=rng.choice(("a", [" ", "\n"])),
            search={"details": True},
        ),
    }


def _completion(rng: random.Random) -> dict[str, Any]:
    ids = [rng.randrange(300) for _ in range(rng.randrange(1, 9))]
    return {
        "model": MODEL,
        "prompt": rng.choice((_text(rng), ids, [ids, ids], [_text(rng)])),
        "max_tokens": rng.randrange(5),
        **_some(rng, echo=True, logprobs=rng.randrange(4), stream=True, n=2, stop=["e"]),
    }


def _response(rng: random.Random) -> dict[str, Any]:
    given = rng.choice((_text(rng), [{"role": rng.choice(_TURNS), "content": _text(rng)}]))
    options = _some(rng, stream=True, instructions=_text(rng), search={"method": "best_of_n:2"})
    return {"model": MODEL, "input": given, "max_output_tokens": rng.randint(1, 6), **options}


def _score(rng: random.Random) -> dict[str, Any]:
    return {"model": MODEL, "prompt": _text(rng), "answer": rng.choice((_text(rng), [_text(rng)]))}


def _tokenize(rng: random.Random) -> dict[str, Any]:
    chat = [{"role": rng.choice(_TURNS), "content": _text(rng)}]
    return rng.choice(({"prompt": _text(rng)}, {"messages": chat, "continue_final_message": True}))


def _detokenize(rng: random.Random) -> dict[str, Any]:
    return {
        "tokens": [rng.choice((rng.randrange(300), -1, 2**40)) for _ in range(rng.randrange(9))]
    }


_MAKERS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/score": _score,
    "/tokenize": _tokenize,
    "/detokenize": _detokenize,
}


def _text(rng: random.Random) -> str:
    """A text of which most fit into the context."""
    return draw_text(rng, _NAMES)[: rng.choice((0, 3, 30, 30, 30, 5000))]


def _some(rng: random.Random, **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if rng.random() < 0.25}


def _changed(rng: random.Random, value: Any) -> Any:
    """The same with one change somewhere inside of it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        kind = rng.randrange(4)
        if kind == 0:
            return {other: given for other, given in value.items() if other != name}
        if kind == 1:
            return {**value, rng.choice(_FIELDS): _value(rng)}
        return {**value, name: _changed(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], _changed(rng, value[place]), *value[place + 1 :]]
    return _value(rng)


def _value(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(_MODELS)
    if kind == 1:
        return _text(rng)
    if kind == 2:
        return [rng.choice(_VALUES) for _ in range(rng.choice((1, 3, 50)))]
    if kind == 3:
        deep: Any = rng.choice(_VALUES)
        for _ in range(rng.randrange(_MOST_DEPTH)):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return rng.choice(_VALUES)


def _broken(rng: random.Random, body: bytes) -> bytes:
    """Bytes that are cut, doubled, swapped, or in another encoding."""
    place = rng.randrange(len(body) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return body[:place]
    if kind == 1:
        return body[:place] + bytes([rng.randrange(256)]) + body[place:]
    if kind == 2:
        return body + body
    if kind == 3:
        return body.decode().encode("utf-16")
    if kind == 4:
        return body.replace(b"1", b"NaN").replace(b"0", b"Infinity")
    return b"\xef\xbb\xbf" + body


def _bytes(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"",
            rng.randbytes(rng.randrange(200)),
            b"[" * rng.randrange(5000),
            b'{"model":' * rng.randrange(500),
            b'"' + b"a" * rng.randrange(5000) + b'"',
            b"9" * rng.randrange(9000),
            b'{"model": "tiny", "model": 1, "messages": "\\ud800"}',
        )
    )
