"""Bodies of /v1/responses: text, and nothing that the server would have to remember."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from stair_jax.data.questions import Message
from stair_jax.server.bodies import Body, Items, SamplingFields, message_of

_Neutral = Callable[[Any], bool]


def _is_none(value: Any) -> bool:
    return value is None


def _is_plain_text(value: Any) -> bool:
    return value in (None, {}, {"format": {"type": "text"}})


def _asks_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not any(value.values()))


class InputPart(Body):
    """A part of a turn: a text that was said or written."""

    NEUTRAL: ClassVar[Mapping[str, _Neutral]] = {
        "annotations": lambda value: value in (None, []),
        "logprobs": lambda value: value in (None, []),
    }
    type: Literal["input_text", "output_text", "text"]
    text: str


class InputMessage(Body):
    """A turn of the chat.

    Attributes:
      type: of the item.
      role: who speaks; "developer" is another name for "system".
      content: a text, or parts that are joined.
    """

    NEUTRAL: ClassVar[Mapping[str, _Neutral]] = dict.fromkeys(
        ("id", "status", "phase"), lambda value: True
    )
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Items[InputPart]

    def as_message(self) -> Message:
        """The turn as the rest of the package has it."""
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return message_of(self.role, content)


class ReasoningItem(Body):
    """Reasoning of an earlier answer, which later turns do not read."""

    NEUTRAL: ClassVar[Mapping[str, _Neutral]] = dict.fromkeys(
        ("id", "status", "summary", "content", "encrypted_content"), lambda value: True
    )
    type: Literal["reasoning"]


class ResponseBody(SamplingFields):
    """The body of a request for one answer.

    Attributes:
      input: what the user says, or the turns of a chat.
      instructions: text of a system turn.
      max_output_tokens: of the answer.
      search: see `SearchFields`.
    """

    NEUTRAL: ClassVar[Mapping[str, _Neutral]] = {
        "reasoning": _asks_nothing,
        "truncation": lambda value: value in (None, "disabled"),
        **dict.fromkeys(("previous_response_id", "conversation", "prompt"), _is_none),
        **dict.fromkeys(("max_tool_calls",), _is_none),
        "include": lambda value: value in (None, []),
        "text": _is_plain_text,
        "background": lambda value: value in (None, False),
        "top_logprobs": lambda value: value in (None, 0),
    }
    input: str | Items[InputMessage | ReasoningItem]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=2**62)
    search: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> "ResponseBody":
        for name in ("stop", "n", "max_tokens"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is no field of this route")
        return self

    @property
    def messages(self) -> list[Message]:
        """The turns, behind the instructions."""
        given = self.input
        if isinstance(given, str):
            turns: list[Message] = [{"role": "user", "content": given}]
        else:
            turns = [item.as_message() for item in given if isinstance(item, InputMessage)]
        if self.instructions is not None:
            turns.insert(0, {"role": "system", "content": self.instructions})
        return turns
