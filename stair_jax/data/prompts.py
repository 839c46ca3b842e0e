"""Reading and validation of prompts and SFT examples in JSON lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl

KINDS = ("safety", "helpfulness")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a search or an evaluation."""

    id: str  # unique in its file
    prompt: str
    kind: str  # "safety" or "helpfulness"
    source: str = ""  # data set or family that it comes from
    reference: str | None = None  # reference answer, if there is one


def read_prompts(path: str | Path) -> list[Prompt]:
    """Reads JSON lines {id, prompt, kind, source, reference?}.

    Raises:
      UserError: the file is empty, or a line lacks a column, has an unknown kind or repeats an id.
    """
    return [
        Prompt(row["id"], row["prompt"], row["kind"], row["source"], row.get("reference"))
        for row in read_rows(path, ("id", "prompt", "kind", "source"))
    ]


def read_rows(path: str | Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Reads JSON lines; checks that `columns` are strings, kinds known and ids unique.

    Raises:
      UserError: as `read_prompts`.
    """
    return check_rows(read_jsonl(path), columns, path)


def check_rows(
    rows: list[dict[str, Any]], columns: Sequence[str], path: Any
) -> list[dict[str, Any]]:
    """Checks rows as `read_rows` does, and returns them; `path` is for messages.

    Kinds and ids are checked only if "kind" and "id" are among `columns`.

    Raises:
      UserError: as `read_prompts`.
    """
    if not rows:
        raise UserError(f"{path} is empty: it needs at least one line")
    first_lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, line {number}"
        for column in columns:
            if column not in row:
                raise UserError(f"{where}, lacks the column {column!r}: it has {', '.join(row)}")
            if not isinstance(row[column], str):
                raise UserError(f"{where}: the column {column!r} must be text")
        if "kind" in columns and row["kind"] not in KINDS:
            raise UserError(f"{where}: kind {row['kind']!r} is unknown: use {' or '.join(KINDS)}")
        if "id" in columns and first_lines.setdefault(row["id"], number) != number:
            first = first_lines[row["id"]]
            raise UserError(f"{where}: id {row['id']!r} is that of line {first}: ids are unique")
    return rows
