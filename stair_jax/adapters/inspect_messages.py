"""Messages of inspect-ai as ours, and our structured answers as its content."""

from collections.abc import Sequence

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
)

from stair_jax.data.questions import Message
from stair_jax.errors import UserError
from stair_jax.settings import require
from stair_jax.text import steps


def content_of(text: str) -> str | list[Content]:
    """An answer as content: each step is reasoning, the final answer is the text.

    Args:
      text: the whole answer, tags visible.

    Returns:
      text alone where the answer has no steps; all of it where it has no tags either.
    """
    if not steps.TAG_PATTERN.search(text):
        return text.strip()
    answer = steps.parse_tolerant(text)
    if not answer.steps:
        return answer.final
    parts: list[Content] = [ContentReasoning(reasoning=_shown(*step)) for step in answer.steps]
    return [*parts, ContentText(text=answer.final)]


def messages_of(chat: Sequence[ChatMessage]) -> list[Message]:
    """A chat as {"role", "content"}.

    Raises:
      UserError: it holds what our models do not know: tools, images, or an answer to go on with.
    """
    messages = [{"role": _role(message), "content": _text(message)} for message in chat]
    require(bool(messages), "the chat is empty: it needs a message of the user")
    require(
        messages[-1]["role"] == "user",
        "the last message of a chat for a stair_jax model must be the user's: it goes on with no "
        "answer of the assistant",
    )
    return messages


def _role(message: ChatMessage) -> str:
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise UserError("stair_jax models call no tools: choose a task or solver without them")
    return message.role


def _text(message: ChatMessage) -> str:
    parts = message.content
    if isinstance(parts, str):
        return parts
    for part in parts:
        if not isinstance(part, ContentText | ContentReasoning):
            raise UserError(f"stair_jax models read text alone, and a message holds {part.type}")
    final = "".join(part.text for part in parts if isinstance(part, ContentText))
    thoughts = [part.reasoning for part in parts if isinstance(part, ContentReasoning)]
    if not thoughts or not isinstance(message, ChatMessageAssistant):
        return final
    return steps.format_answer([_step(thought) for thought in thoughts], final)


def _shown(title: str, text: str) -> str:
    return f"{steps.TITLE_PREFIX} {title}\n{text}" if title else text


def _step(thought: str) -> tuple[str, str]:
    """(title, text) of what `_shown` made."""
    first, _, rest = thought.partition("\n")
    if not first.startswith(steps.TITLE_PREFIX):
        return "", thought
    return first.removeprefix(steps.TITLE_PREFIX).strip(), rest
