"""Texts as the blocks have them."""

from collections.abc import Mapping, Sequence

_BRIEF = 200  # characters of a prompt in a list


def brief(text: str) -> str:
    """The first characters of a text, in one line."""
    line = " ".join(text[: 2 * _BRIEF].split())
    return line if len(text) <= _BRIEF and len(line) <= _BRIEF else f"{line[:_BRIEF]}…"


def chat_before(system: str | None, history: Sequence[Mapping[str, str]] | None) -> list[list[str]]:
    """The turns before a prompt, as [role, text]."""
    turns = [["system", system]] if system else []
    return [*turns, *as_turns(history or ())]


def as_turns(messages: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Messages as [role, text]."""
    return [[str(each["role"]), str(each["content"])] for each in messages]
