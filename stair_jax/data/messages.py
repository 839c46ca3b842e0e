"""Chat messages as one question with one answer: the forms of OpenAI, TRL and ShareGPT.

A message is {role, content} or {from, value}. Conversations of several turns are left out: prompts
and examples have a single one.
"""

from collections.abc import Mapping
from typing import Any

from stair_jax.data.schema import LeftOut, Reading

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_USER, _ANSWERED, _ANSWER = ["user"], ["user", "assistant"], ["assistant"]


def question_and_answer(messages: Any, reading: Reading) -> tuple[str, str]:
    """The texts of a conversation that is one question and its answer.

    Raises:
      LeftOut: it is something else, or has a system turn, which no prompt has.
      TypeError: these are no messages.
    """
    turns = _turns(messages, reading)
    if [role for role, _ in turns] != _ANSWERED:
        raise LeftOut("it has more than one turn" if len(turns) > 2 else "a turn is missing")
    return turns[0][1], turns[1][1]


def question(messages: Any, reading: Reading) -> str:
    """What the user asks, given as text or as a conversation of one turn, answered or not.

    Raises:
      LeftOut: as `question_and_answer`.
      TypeError: these are no messages.
    """
    if isinstance(messages, str):
        return messages
    turns = _turns(messages, reading)
    if [role for role, _ in turns] not in (_USER, _ANSWERED):
        raise LeftOut("it has more than one turn" if len(turns) > 1 else "a turn is missing")
    return turns[0][1]


def answer(messages: Any, asked: Any, reading: Reading) -> str:
    """An answer, given as text, as one message, or as the end of a conversation of one turn.

    Args:
      messages: the answer.
      asked: the prompt that it is an answer to.
      reading: what is kept.

    Raises:
      LeftOut: as `question_and_answer`; or the conversation begins with another prompt.
      TypeError: these are no messages.
    """
    if isinstance(messages, str):
        return messages
    turns = _turns([messages] if isinstance(messages, Mapping) else messages, reading)
    if [role for role, _ in turns] not in (_ANSWER, _ANSWERED):
        raise LeftOut("it has more than one turn" if len(turns) > 1 else "a turn is missing")
    if len(turns) > 1 and turns[0][1].strip() != str(asked).strip():
        raise LeftOut("its conversation begins with another prompt")
    return turns[-1][1]


def _turns(messages: Any, reading: Reading) -> list[tuple[str, str]]:
    """(role, text) of each message but those of the system."""
    if not isinstance(messages, list):
        raise TypeError(f"{str(messages)[:60]!r} is no list of messages")
    turns = []
    for message in messages:
        role = message["role"] if "role" in message else message["from"]
        if role not in _ROLES:
            raise LeftOut(f"it has a turn of {role!r}")
        if message.get("tool_calls"):
            raise LeftOut("it calls a tool")
        text = _text(message["content"] if "role" in message else message["value"])
        if _ROLES[role] != "system":
            turns.append((_ROLES[role], text))
        elif text.strip():
            reading.leave_out("system")
    return turns


def _text(content: Any) -> str:
    """The text of a message, which may be given in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content)
    raise LeftOut("a turn is not text alone")
