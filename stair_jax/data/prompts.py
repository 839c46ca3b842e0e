"""Reading and validation of prompts and SFT examples in JSON lines."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from stair_jax.data.records import Prompt, Record
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
    check = RowCheck(record, path, unique_ids)
    records = [check.add(row) for row in rows]
    check.finish()
    return records


class RowCheck(Generic[R]):
    """Checks rows one after another, as `read_rows` says."""

    def __init__(self, record: type[R], path: Any, unique_ids: bool = True):
        """No row is checked yet; `path` is for messages."""
        self._record, self._path, self._unique_ids = record, path, unique_ids
        self._lines: dict[str, int] = {}
        self.count = 0

    def add(self, row: Mapping[str, Any]) -> R:
        """The next row as a record.

        Raises:
          UserError: it is none, or repeats an id.
        """
        self.count += 1
        where = f"{self._path}, line {self.count}"
        read = self._record.from_dict(row, where)
        first = self._lines.setdefault(read.id, self.count) if self._unique_ids else self.count
        if first != self.count:
            raise UserError(
                f"{where}: id {read.id!r} is already used in line {first}: ids must be unique"
            )
        return read

    def finish(self) -> None:
        """Checks, behind the last row, that there was one.

        Raises:
          UserError: there was none.
        """
        if not self.count:
            raise UserError(f"{self._path} is empty: it needs at least one line")
