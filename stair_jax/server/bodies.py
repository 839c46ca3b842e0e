"""Bodies of requests: JSON as pydantic models that drop nothing in silence.

A field that we do not know is refused by its name, as it might change the answer. Those that never
do are accepted, and so are those of which a value changes nothing (`tools: []`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from stair_jax.data.questions import Message
from stair_jax.server.errors import ApiError, ClientGoneError

B = TypeVar("B", bound="Body")
T = TypeVar("T")
_Neutral = Callable[[Any], bool]
_LARGEST_INT = 2**63 - 1
_SHORT_BODY = 2**16  # bytes: what is longer is read beside the event loop
MOST_STOPS = 16
MOST_CHOICES = 2**16  # as in the settings


@dataclass(frozen=True)
class _Bounded:
    """Says how far a list is read: up to its first error, as no other is told.

    One for each item would take a thousand times the memory of the body.
    """

    most: int = 2**32

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return {**handler(source), "fail_fast": True, "max_length": self.most}


Items = Annotated[list[T], _Bounded()]
Choices = Annotated[list[T], _Bounded(MOST_CHOICES)]  # of which each has an answer of its own


def _one_of(*values: Any) -> _Neutral:
    return lambda value: any(value == one and type(value) is type(one) for one in values)


def _is_zero(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and value == 0)


def _is_one(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and value == 1)


def is_empty(value: Any) -> bool:
    """Whether a field asks for nothing."""
    return value is None or value == [] or value == {}


def _always(value: Any) -> bool:
    return True


# About who asks, or what is done with the answer elsewhere.
_HARMLESS = (
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("service_tier", "parallel_tool_calls", "request_id"),
)
# Of other servers: values that ask for nothing.
_NEUTRAL: Mapping[str, _Neutral] = {
    **dict.fromkeys(_HARMLESS, _always),
    "store": _one_of(None, False),
    "tools": is_empty,
    "functions": is_empty,
    "tool_choice": _one_of(None, "none", "auto"),
    "function_call": _one_of(None, "none", "auto"),
    "response_format": _one_of(None, {"type": "text"}),
    "modalities": _one_of(None, ["text"]),
    "logit_bias": is_empty,
    "frequency_penalty": _is_zero,
    "presence_penalty": _is_zero,
    "repetition_penalty": _is_one,
    "min_p": _is_zero,
    "min_tokens": _is_zero,
    "ignore_eos": _one_of(None, False),
    "skip_special_tokens": _one_of(None, True),
}


class Body(BaseModel):
    """Base of all bodies.

    Attributes:
      NEUTRAL: fields that are accepted where their value changes nothing, beside those of all.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    NEUTRAL: ClassVar[Mapping[str, _Neutral]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        neutral = {**_NEUTRAL, **cls.NEUTRAL}
        known = {name: given for name, given in value.items() if name in cls.model_fields}
        for name, given in value.items():
            if name not in known and not (name in neutral and neutral[name](given)):
                return {**known, name: given}  # it is refused: the others need no error too
        return known


def message_of(role: str, content: str) -> Message:
    """A turn as the rest of the package has it."""
    return {"role": "system" if role == "developer" else role, "content": content}


class StreamOptions(Body):
    """How an answer is streamed.

    Attributes:
      include_usage: whether a last piece has the numbers of tokens.
    """

    NEUTRAL: ClassVar = {
        "include_obfuscation": _always,
        "continuous_usage_stats": _one_of(None, False),
    }
    include_usage: bool = False


class SamplingFields(Body):
    """What requests for text have in common.

    Attributes:
      model: the name of the model, perhaps with that of a search.
      temperature: 0 is greedy.
      top_p: probability mass that is kept.
      top_k: number of tokens that are kept; 0: all.
      max_tokens: of an answer.
      n: answers to this request.
      seed: of its random numbers; the same request with the same seed gets the same answer.
      stop: texts that end an answer, which has none of them.
      stream: whether the answer comes as it is sampled.
      stream_options: see `StreamOptions`.
      priority: requests with a lower one go first.
    """

    model: str
    temperature: float | None = Field(None, ge=0, le=1e4)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**24)
    max_tokens: int | None = Field(None, ge=1, le=_LARGEST_INT)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(None, ge=-_LARGEST_INT, le=_LARGEST_INT)
    stop: str | Items[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int = Field(0, ge=-(2**20), le=2**20)

    @property
    def num_choices(self) -> int:
        """Answers that are asked for."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(given)

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the numbers of its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def says_nothing_of_sampling(self) -> bool:
        """Whether the server's own settings of sampling hold."""
        return self.temperature is None and self.top_p is None and self.top_k is None

    @model_validator(mode="after")
    def _check(self) -> "SamplingFields":
        if len(self.stops) > MOST_STOPS or not all(self.stops):
            raise ValueError(f"stop may have {MOST_STOPS} texts, none of them empty")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self


async def read_body(request: Request, cls: type[B]) -> B:
    """The body of a request.

    Raises:
      ApiError: it is no JSON, or a field cannot be; names the first one. Or the client has gone.
    """
    try:
        text = await request.body()
        if len(text) <= _SHORT_BODY:
            return cls.model_validate_json(text)
        read: B = await request.app.state.serving.in_text_thread(cls.model_validate_json, text)
        return read
    except ValidationError as error:
        raise _refusal(error) from None
    except ClientDisconnect:
        raise ClientGoneError from None


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"{place} is not supported with this value: leave it out"
        return ApiError(400, message, place, "unsupported_parameter")
    text = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{place}: {text}" if place else text, place or None)


def _place(loc: tuple[int | str, ...]) -> str:
    """Where a field is, as in messages[0].content; without pydantic's names of alternatives."""
    place = ""
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):
            place += f".{part}" if place else part
    return place[:200]
