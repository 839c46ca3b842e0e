"""Chat messages as one question with one answer: the forms of OpenAI, TRL and ShareGPT.

A message is {role, content} or {from, value}. System turns and conversations of several turns are
left out unless the user keeps them (`files.keep`): then the turns before the last question are the
system turn and the history of its row. Preference pairs always have a single turn.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stair_jax.data.records import Turns
from stair_jax.data.schema import KEEPABLE, LeftOut, Reading

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_USER, _ANSWERED, _ANSWER = ["user"], ["user", "assistant"], ["assistant"]


class Chat(NamedTuple):
    """A question, what stands before it, and the answer to it; "" if there is none."""

    question: str
    answer: str = ""
    system: str | None = None
    history: Turns = ()


def read_chat(messages: Any, reading: Reading, is_answered: bool) -> Chat:
    """A conversation, given as text or as messages; the last question of it counts.

    Args:
      messages: the conversation, or the question alone.
      reading: whether several turns and system turns are kept.
      is_answered: whether an answer is needed.

    Raises:
      LeftOut: there are turns that are not kept, or a turn is missing.
      TypeError: these are no messages.
    """
    if isinstance(messages, str):
        return Chat(messages)
    systems: list[str] = []
    turns = _turns(messages, reading, systems)
    if systems and (len(systems) > 1 or not reading.keeps("turns")):
        raise LeftOut(KEEPABLE["system"])
    said = ""
    if turns and turns[-1][0] == "assistant":
        said = turns.pop()[1]
    elif is_answered:
        raise LeftOut(_reason(turns, 2, reading))
    roles = [role for role, _ in turns]
    if roles != (_ANSWERED * len(turns))[: len(turns)] or roles[-1:] != _USER:
        raise LeftOut(_reason(turns, 1, reading))
    if len(turns) > 1:
        reading.leave_out("turns")
    history = tuple({"role": role, "content": text} for role, text in turns[:-1])
    return Chat(turns[-1][1], said, systems[0] if systems else None, history)


def _reason(turns: list[tuple[str, str]], most: int, reading: Reading) -> str:
    """Why turns are no question with an answer, or without one; `most` turns are taken as one."""
    if len(turns) > most and not reading.keeps("turns"):
        return KEEPABLE["turns"]
    roles = [role for role, _ in turns]
    is_chat = roles == (_ANSWERED * len(roles))[: len(roles)]
    return "a turn is missing" if is_chat else "its turns do not alternate"


def question(messages: Any, reading: Reading) -> str:
    """What the user asks, given as text or as a conversation of one turn, answered or not.

    Raises:
      LeftOut: it has more than one turn, or a system turn.
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
      LeftOut: as `question`; or the conversation begins with another prompt.
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


def _turns(
    messages: Any, reading: Reading, systems: list[str] | None = None
) -> list[tuple[str, str]]:
    """(role, text) of each message but those of the system, which go into `systems` if given."""
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
        elif text.strip() and not reading.keeps("system"):
            if systems is None:
                raise LeftOut(KEEPABLE["system"])
            systems.append(text)
    return turns


def _text(content: Any) -> str:
    """The text of a message, which may be given in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content)
    raise LeftOut("a turn is not text alone")
