"""The lines that `stair-jax answer` writes, and the file of them that is there already."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from stair_jax import storage
from stair_jax.closing import Closing
from stair_jax.data.questions import Question
from stair_jax.errors import UserError
from stair_jax.inference.answers import Answered
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.text import steps
from stair_jax.text.terminal import printable_json

Row = dict[str, Any]
_COST = ("slots", "system")  # the system turn is a part of the messages
_IDENTITY = ("model", "method", "settings")


def make_row(question: Question, answered: Answered, identity: Row) -> Row:
    """The line of an answer."""
    parsed = steps.parse_tolerant(answered.text)
    is_chat = len(question.messages) > 1
    return {
        "id": question.id,
        "prompt": question.text,
        **({"messages": list(question.messages)} if is_chat else {}),
        "steps": [{"title": title, "text": text} for title, text in parsed.steps],
        "final": parsed.final,
        "well_formed": steps.is_well_formed(answered.text),
        "text": answered.text,
        "score": answered.score,
        "finish": answered.finish,
        "tokens": len(answered.tokens),
        "prompt_tokens": answered.prompt_tokens,
        "generated_tokens": answered.generated_tokens,
        **identity,
    }


def make_identity(model: str, prm: str, settings: AnswerSettings) -> Row:
    """The columns that are the same in all lines: model, method, and a hash of the settings."""
    values = {k: v for k, v in storage.plain(settings).items() if k not in _COST}
    hashed = storage.fingerprint({"prm": prm, **values})[:16]
    return {"model": model, "method": settings.method, "settings": hashed}


class AnswerFile(Closing):
    """Where the lines go: a file that is gone on with by id, or stdout."""

    def __init__(self, path: str, identity: Row):
        """Reads what the file has already.

        Args:
          path: of the file; "": stdout.
          identity: of `make_identity`.

        Raises:
          UserError: the file cannot be used, or holds answers of another model or other settings.
        """
        self._path = Path(path).expanduser() if path else None
        self._file: TextIO | None = None
        self._rows: dict[Any, Row] = {}
        if self._path is not None and self._path.exists():
            self._rows = {row.get("id"): row for row in _whole_rows(self._path)}
            for row in self._rows.values():
                _check_identity(self._path, row, identity)

    def __enter__(self) -> Self:
        """Opens the file; a last line that is incomplete is dropped."""
        if self._path is not None:
            storage.write_jsonl(self._path, self._rows.values())
            with storage.writing(self._path):
                self._file = open(self._path, "a", encoding="utf-8")
        return self

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def left(self, questions: Sequence[Question]) -> list[Question]:
        """The questions that have no answer yet.

        Raises:
          UserError: the file has an answer to another question of the same id.
        """
        for question in questions:
            row = self._rows.get(question.id)
            if row is not None and not _is_answer_to(row, question):
                raise UserError(
                    f"{self._path} has an answer to another prompt of the id {question.id!r}: "
                    "name another file with --out"
                )
        return [question for question in questions if question.id not in self._rows]

    def write(self, row: Row) -> None:
        """Writes a line, at once."""
        line = json.dumps(storage.plain(row), ensure_ascii=False, allow_nan=False)
        line = printable_json(line) + "\n"
        if self._file is None:
            print(line, end="", flush=True)
            return
        assert self._path is not None
        with storage.writing(self._path):
            self._file.write(line)
            self._file.flush()


def _whole_rows(path: Path) -> list[Row]:
    """The rows of a file, without a last line that is incomplete."""
    with storage.reading(path):
        storage.check_regular(path)
        lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}, is not JSON: name another file with --out"
            ) from error
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None:
            raise UserError(f"{path}, line {number}, is no answer: name another file with --out")
    return rows


def _check_identity(path: Path, row: Row, identity: Row) -> None:
    for name in _IDENTITY:
        if row.get(name) != identity[name]:
            found = f"{name} {row.get(name)!r}, not {identity[name]!r}"
            what = "other settings" if name == "settings" else found
            raise UserError(
                f"{path} has answers of {what}: name another file with --out, or remove it"
            )


def _is_answer_to(row: Row, question: Question) -> bool:
    messages = row.get("messages", [{"role": "user", "content": row.get("prompt")}])
    return bool(messages == list(question.messages))
