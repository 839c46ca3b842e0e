"""Rows of a benchmark's file: all of them, or one line that says what is wrong.

A figure over fewer rows is a figure of another benchmark. So a row that cannot be read, or that
lacks a column, ends the reading here, whereas data for training may lose a few of their rows
(`data/left_out.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stair_jax.data.numbers import read_number
from stair_jax.data.sources import read_source
from stair_jax.errors import UserError
from stair_jax.evaluation.case import Case

Names = str | tuple[str, ...]  # of a column; several: the first of them that a row has
_MOST_SHOWN = 20  # columns in a message


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
      place: the file and the line (CSV, TSV, JSON lines), item (JSON) or row (Parquet), for
        messages.
      number: of the row in its file, from 0.
      columns: JSON values by name; those of CSV and TSV are text.
    """

    place: str
    number: int
    columns: Mapping[str, Any]

    def has(self, names: Names) -> bool:
        """Whether the row has one of the columns."""
        return any(name in self.columns for name in _tuple(names))

    def value(self, names: Names) -> Any:
        """The value of a column; None: the row has none."""
        return next((self.columns[name] for name in _tuple(names) if name in self.columns), None)

    def text(self, names: Names, default: str | None = None) -> str:
        """The text of a column, as the file has it; numbers as text.

        Args:
          names: of the column.
          default: for a row without the column, or with nothing in it; None: that is an error.

        Raises:
          UserError: the column is missing, is empty, or holds neither text nor a number.
        """
        value = self.value(names)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
        if default is not None and (value is None or isinstance(value, str)):
            return default
        if not self.has(names):
            raise self.error(_missing(self, names))
        what = "is empty" if value is None or isinstance(value, str) else "is not text"
        raise self.error(f"the column {_shown(names)} {what}")

    def number_in(self, names: Names) -> float:
        """The finite number of a column, which may be written as text.

        Raises:
          UserError: the column is missing, or holds no number.
        """
        if not self.has(names):
            raise self.error(_missing(self, names))
        number = read_number(self.value(names))
        if number is None:
            raise self.error(f"the column {_shown(names)} is no number")
        return number

    def error(self, what: str) -> UserError:
        """An error about this row, to be raised."""
        return UserError(f"{self.place}: {what}")


def read_rows(path: Path, *required: Names) -> list[Row]:
    """Reads all rows of a file: CSV, TSV, JSON, JSON lines (gzipped or not), Parquet.

    Args:
      path: of the file; also a folder of `save_to_disk`, or the id of a data set on the hub, see
        `data.sources.read_source`.
      required: columns that every row must have.

    Raises:
      UserError: the file cannot be read or has no rows; or a row cannot be read or lacks a column:
        names the line and the columns that are there.
    """
    found = read_source(path)
    if found.unreadable:
        place, reason = found.unreadable[0]
        raise UserError(
            f"{path}, {place}: {reason}; {len(found.unreadable)} of {len(found)} rows cannot be "
            "read: repair the file, as a benchmark is all of its rows"
        )
    if not found.rows:
        raise UserError(f"{path} has no rows: copy the file again")
    rows = [
        Row(f"{path}, {place}", number, columns)
        for number, (place, columns) in enumerate(found.rows)
    ]
    for row in rows:
        for names in required:
            if not row.has(names):
                raise row.error(_missing(row, names))
    return rows


def read_cases(
    path: Path,
    prompt: Names,
    *,
    id: str = "",
    group: str = "",
    columns: Mapping[str, str] | None = None,
) -> list[Case]:
    """Cases of a file with one prompt a row.

    Args:
      path: see `read_rows`.
      prompt: column of the prompt; white space around it is left out.
      id: column of the id; "": the number of the row, from 0.
      group: column of the group; "": there are none.
      columns: by their names in `Case.columns`; their cells may be empty.

    Raises:
      UserError: see `read_rows` and `checked_cases`; or a prompt, an id or a group is empty.
    """
    columns = columns or {}
    rows = read_rows(path, prompt, *filter(None, (id, group)), *columns.values())
    cases = [
        Case(
            id=row.text(id) if id else str(row.number),
            prompt=row.text(prompt).strip(),
            group=row.text(group) if group else "",
            columns={name: row.text(column, "").strip() for name, column in columns.items()},
        )
        for row in rows
    ]
    return checked_cases(path, cases)


def checked_cases(path: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases of a file, where cases that ask the same become one cluster of the bootstrap.

    Raises:
      UserError: an id comes twice.
    """
    ids = Counter(case.id for case in cases)
    if repeated := next((name for name, count in ids.items() if count > 1), None):
        raise UserError(f"{path}: the id {repeated!r} comes {ids[repeated]} times: make ids unique")
    times = Counter(map(_asked, cases))
    first: dict[Any, str] = {}
    for case in cases:
        first.setdefault(_asked(case), case.id)
    return [
        replace(case, cluster=f"same prompt as {first[_asked(case)]}")
        if times[_asked(case)] > 1 and not case.cluster
        else case
        for case in cases
    ]


def usual_places(folder: str, *names: str) -> tuple[str, ...]:
    """Where users have a file below their folder of data, for `Source.paths`.

    Args:
      folder: of the benchmark in the folder of data.
      names: of the file, the preferred one first; each may be gzipped, with `.gz` behind the name.

    Returns:
      all names in `folder`, then all without a folder.
    """
    files = [file for name in names for file in (name, f"{name}.gz")]
    return (*(f"{folder}/{file}" for file in files), *files)


def _asked(case: Case) -> tuple[Any, ...]:
    return (case.system, tuple(tuple(sorted(turn.items())) for turn in case.history), case.prompt)


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _shown(names: Names) -> str:
    return " or ".join(map(repr, _tuple(names)))


def _missing(row: Row, names: Names) -> str:
    shown = [repr(name) for name in row.columns][:_MOST_SHOWN]
    rest = "" if len(row.columns) <= _MOST_SHOWN else f" and {len(row.columns) - _MOST_SHOWN} more"
    return (
        f"there is no column {_shown(names)}, only {', '.join(shown)}{rest}: take the benchmark's "
        "own file, or rename a column"
    )
