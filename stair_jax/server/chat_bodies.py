"""Bodies of chats: their turns, and how they are answered."""

from typing import ClassVar, Literal

from pydantic import Field

from stair_jax.data.questions import Message
from stair_jax.server.bodies import Body, SamplingFields, is_empty


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
    content: str | list[TextPart]
    reasoning: str | None = None
    reasoning_content: str | None = None

    def as_message(self) -> Message:
        """The turn as the rest of the package has it."""
        role = "system" if self.role == "developer" else self.role
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return {"role": role, "content": content}


class ChatBody(SamplingFields):
    """The body of a request for answers to a chat.

    Attributes:
      messages: the turns; a last one of the assistant is gone on with.
      max_completion_tokens: the same as `max_tokens`.
      logprobs: whether the answer has the log-probabilities of its tokens.
    """

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None

    @property
    def most_tokens(self) -> int | None:
        """Of an answer."""
        given = [m for m in (self.max_completion_tokens, self.max_tokens) if m is not None]
        return min(given, default=None)
