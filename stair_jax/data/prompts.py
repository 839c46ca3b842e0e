"""Reading and validation of prompts and SFT examples in JSON lines."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stair_jax.data.records import Prompt, Record, read_dicts
from stair_jax.errors import UserError
from stair_jax.storage import read_jsonl

R = TypeVar("R", bound=Record)


def read_prompts(path: str | Path, unique_ids: bool = True) -> list[Prompt]:
    """Reads JSON lines {id, prompt, kind, source, reference?}.

    Args:
      path: the file.
      unique_ids: whether an id that comes again is an error.

    Raises:
      UserError: the file is empty, or a line lacks a column, has an unknown kind or repeats an id.
    """
    return read_rows(path, Prompt, unique_ids)


def read_rows(path: str | Path, record: type[R], unique_ids: bool = True) -> list[R]:
    """Reads JSON lines as records, of which there is at least one.

    Raises:
      UserError: as `read_prompts`.
    """
    return check_rows(read_jsonl(path), record, path, unique_ids)


def check_rows(
    rows: Iterable[Mapping[str, Any]], record: type[R], path: Any, unique_ids: bool = True
) -> list[R]:
    """The rows as records, checked as `read_rows` says.

    Raises:
      UserError: as `read_prompts`.
    """
    records = read_dicts(rows, record, path)
    if not records:
        raise UserError(f"{path} is empty: it needs at least one line")
    first_lines: dict[str, int] = {}
    for number, read in enumerate(records, start=1):
        first = first_lines.setdefault(read.id, number)
        if unique_ids and first != number:
            raise UserError(
                f"{path}, line {number}: id {read.id!r} is already used in line {first}: "
                "ids must be unique"
            )
    return records
