"""What a model is asked from the command line: single prompts, and chats of several turns.

Rows may have the columns of our prompts, or `messages` or `conversations` (the forms of OpenAI and
ShareGPT), or a text in `question` or `instruction`; a `.txt` file has a prompt a line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stair_jax.data.records import KINDS, Prompt
from stair_jax.data.sources import check_source, read_source
from stair_jax.data.text_files import read_text
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint
from stair_jax.text.plain import valid_unicode

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_CHATS = ("messages", "conversations", "prompt")  # columns that may hold messages
_TEXTS = ("prompt", "question", "instruction")
_SYSTEMS = ("system", "system_prompt")
_ID_LENGTH = 16  # hexadecimal digits of a hash

Message = dict[str, str]  # {"role": "system", "user" or "assistant", "content": text}


@dataclass(frozen=True)
class Question:
    """A chat whose last message is the user's.

    Attributes:
      id: unique in its source.
      messages: in order; at most one of the system, which comes first.
      kind: "safety" or "helpfulness", for a judge.
      reference: the right answer where the row has one, for a judge.
    """

    id: str
    messages: tuple[Message, ...]
    kind: str = "helpfulness"
    reference: Any = None

    @property
    def text(self) -> str:
        """What the user asks last."""
        return self.messages[-1]["content"]

    def to_prompt(self) -> Prompt:
        """The chat as one text, as a judge of the answer reads it."""
        turns = [message for message in self.messages if message["role"] != "system"]
        if len(turns) == 1:
            return Prompt(self.id, turns[0]["content"], self.kind, reference=self.reference)
        lines = (f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)
        return Prompt(self.id, "\n\n".join(lines), self.kind, reference=self.reference)


def make_question(text: str, id: str = "", system: str | None = None) -> Question:
    """A single prompt; without an id, a hash of its text is one."""
    return _question(id, [{"role": "user", "content": valid_unicode(text.strip())}], system)


def with_system(messages: list[Message], system: str | None) -> tuple[Message, ...]:
    """The messages behind a system turn, unless there is none or they have one."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return tuple(messages)
    return ({"role": "system", "content": system}, *messages)


def read_questions(source: str | Path, system: str | None = None) -> list[Question]:
    """Reads a file or data set of prompts and chats.

    A row without an id gets a hash of what it says; the second one of the same text "-2" behind it.
    Answers at the end of a chat are left out.

    Args:
      source: as of `read_source`, or a `.txt` file with a prompt a line.
      system: text of a system turn, for rows without one.

    Raises:
      UserError: it cannot be read, is empty, repeats an id, or a row holds no chat that ends with
        the user; names the row.
    """
    check_source(source)
    rows = _read_rows(source)
    if not rows:
        raise UserError(f"{source} is empty: it needs at least one prompt")
    questions: list[Question] = []
    places: dict[str, str] = {}
    hashes: dict[str, int] = {}
    for place, row in rows:
        where = f"{source}, {place}"
        question = _read(row, where, system)
        if row.get("id") in (None, ""):
            number = hashes[question.id] = hashes.get(question.id, 0) + 1
            if number > 1:
                question = replace(question, id=f"{question.id}-{number}")
        if (first := places.setdefault(question.id, place)) != place:
            raise UserError(f"{where}: id {question.id!r} is already used in {first}")
        questions.append(question)
    return questions


def _read_rows(source: str | Path) -> list[tuple[str, Mapping[str, Any]]]:
    path = Path(source).expanduser()
    if path.suffix.lower() == ".txt" and path.is_file():
        return list(_lines(path))
    found = read_source(source)
    if found.unreadable:
        place, reason = found.unreadable[0]
        raise UserError(f"{source}, {place}: {reason}")
    return [(place, row) for place, row in found.rows]


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1):
        if valid_unicode(line) != line:
            raise UserError(f"{path}, line {number} is not UTF-8 text")
        if line.strip():
            yield f"line {number}", {"prompt": line.rstrip("\r")}


def _read(row: Mapping[str, Any], where: str, system: str | None) -> Question:
    columns = (row.get(name) for name in _SYSTEMS)
    own = next((text for text in columns if isinstance(text, str) and text.strip()), system)
    id = row.get("id")
    if not isinstance(id, str | int | None) or isinstance(id, bool):
        raise UserError(f"{where}: the column 'id' must be text")
    kind = row["kind"] if row.get("kind") in KINDS else "helpfulness"
    question = _question("" if id is None else str(id), _messages(row, where), own, kind)
    return replace(question, reference=row.get("reference"))


def _question(
    id: str, messages: list[Message], system: str | None, kind: str = "helpfulness"
) -> Question:
    whole = with_system(messages, system)
    return Question(id or fingerprint(whole)[:_ID_LENGTH], whole, kind)


def _messages(row: Mapping[str, Any], where: str) -> list[Message]:
    """The messages of a row, up to the last one of the user."""
    listed = next((row[name] for name in _CHATS if isinstance(row.get(name), list)), None)
    if listed is None:
        return [{"role": "user", "content": _text(row, where).strip()}]
    messages = [_message(message, where) for message in listed]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages or messages[-1]["role"] != "user":
        raise UserError(f"{where}: the chat has no message of the user at its end")
    if any(message["role"] == "system" for message in messages[1:]):
        raise UserError(f"{where}: a system message must be the first one of its chat")
    return messages


def _text(row: Mapping[str, Any], where: str) -> str:
    texts = (row.get(name) for name in _TEXTS)
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        raise UserError(
            f"{where}: it has no prompt (its columns are {', '.join(row) or 'none'}): give it a "
            "text in 'prompt', 'question' or 'instruction', or a list of 'messages'"
        )
    given = row.get("input")  # of Alpaca
    is_alpaca = text == row.get("instruction") and isinstance(given, str) and bool(given.strip())
    return f"{text}\n\n{given}" if is_alpaca else text


def _message(message: Any, where: str) -> Message:
    form = "{'role': 'user', 'content': text} or {'from': 'human', 'value': text}"
    if not isinstance(message, Mapping):
        raise UserError(f"{where}: a message must be {form}")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise UserError(f"{where}: a message of {role!r}: known are {', '.join(_ROLES)}")
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UserError(f"{where}: the text of a message is missing: it must be {form}")
    return {"role": _ROLES[role], "content": content}


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)
