"""Bodies of chats: their turns, and how they are answered."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from stair_jax.data.questions import Message
from stair_jax.inference.prompt_logps import MOST_TOP
from stair_jax.server.bodies import Body, Items, SamplingFields, is_empty, message_of


class TextPart(Body):
    """A part of a message; the only kind that our models read."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """A turn of a chat.

    Attributes:
      role: who speaks; "developer" is another name for "system".
      content: a text, or parts that are joined.
      reasoning: of an earlier answer, which later turns do not read.
      reasoning_content: the same.
    """

    NEUTRAL: ClassVar = dict.fromkeys(
        ("name", "refusal", "audio", "annotations", "tool_calls", "function_call"), is_empty
    )
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Items[TextPart]
    reasoning: str | None = None
    reasoning_content: str | None = None

    def as_message(self) -> Message:
        """The turn as the rest of the package has it."""
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return message_of(self.role, content)


class ChatBody(SamplingFields):
    """The body of a request for answers to a chat.

    Attributes:
      messages: the turns; a last one of the assistant is gone on with.
      max_completion_tokens: the same as `max_tokens`.
      logprobs: whether the answer has the log-probabilities of its tokens.
      top_logprobs: how many of the likeliest tokens are told in the place of each.
      search: what the name of a model cannot say of a search, see `SearchFields`.
    """

    messages: Items[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    search: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Of an answer."""
        given = [m for m in (self.max_completion_tokens, self.max_tokens) if m is not None]
        return min(given, default=None)
