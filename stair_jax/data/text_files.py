"""Text files of rows: JSON lines, JSON, CSV and TSV, plain or compressed by gzip or zstd.

Their text is UTF-8, UTF-16 or UTF-32. A row that cannot be read does not end the reading: it is
listed with its place and the reason, and whoever asked decides how many of these are too many.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stair_jax.data.cells import MOST_LEVELS, BadCell, clean_row, json_object
from stair_jax.data.unpacking import open_unpacked
from stair_jax.errors import UserError
from stair_jax.storage import reading

_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
}
_TABLES = {
    b"PAR1": "a Parquet file: give it a name that ends with .parquet",
    b"ARROW1": "an Arrow file: give it a name that ends with .arrow",
}
_LONGEST_FIELD = 2**31 - 1  # the default of the csv module, 128 KiB, is too short for answers
_BAD_BYTE = re.compile("[\udc80-\udcff]")  # as the error handler "surrogateescape" writes them
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class Place(NamedTuple):
    """A row by its place in its source, such as "line 3", "item 3" or "row 3"."""

    place: str
    row: dict[str, Any]


class Unreadable(NamedTuple):
    """Where a row is that cannot be read, and why."""

    place: str
    reason: str


@dataclass
class SourceRows:
    """What was found in a source.

    Attributes:
      rows: those that can be read, in their order.
      unreadable: the others.
    """

    rows: list[Place] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, place: str, row: Any) -> None:
        """Adds a row, or lists it as unreadable where it is no object of JSON's values."""
        if not isinstance(row, dict):
            self.unreadable.append(Unreadable(place, "is not a JSON object"))
            return
        try:
            self.rows.append(Place(place, clean_row(row)))
        except BadCell as error:
            self.unreadable.append(Unreadable(place, str(error)))

    def __len__(self) -> int:
        """All rows."""
        return len(self.rows) + len(self.unreadable)


def as_rows(rows: Iterable[Any], unit: str = "row") -> SourceRows:
    """Rows that are in memory already, numbered from 1."""
    found = SourceRows()
    for number, row in enumerate(rows, start=1):
        found.add(f"{unit} {number}", row)
    return found


def read_text(path: Path) -> str:
    """The text of a file; bytes that are not UTF-8 become lone surrogates, which rows are not.

    Raises:
      UserError: the file is missing or cannot be read or decoded.
    """
    try:
        with open_unpacked(path) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    for start, what in _ARCHIVES.items():
        if data.startswith(start):
            raise UserError(f"{path} is {what}: unpack it, and name the file that was in it")
    for start, what in _TABLES.items():
        if data.startswith(start):
            raise UserError(f"{path} is {what}")
    encoding = json.detect_encoding(data)  # by the byte order mark, or by where zero bytes are
    try:
        return data.decode(
            encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict"
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {encoding} text at byte {error.start}") from error


def read_json_lines(path: Path) -> SourceRows:
    """Reads JSON lines; blank lines are skipped, and a byte order mark.

    Raises:
      UserError: as `read_text`.
    """
    return _json_lines(enumerate(read_text(path).split("\n"), start=1))


def read_json_line_parts(path: Path, size: int) -> Iterator[SourceRows]:
    """Reads JSON lines as `read_json_lines` does, so many at a time; all at once if not in UTF-8.

    Args:
      path: of the file.
      size: lines in memory.

    Raises:
      UserError: as `read_text`.
    """
    if not _is_utf8(path):
        yield read_json_lines(path)
        return
    with reading(path), open_unpacked(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="\n")
        lines = enumerate((line.removesuffix("\n") for line in text), start=1)
        while part := list(itertools.islice(lines, size)):
            yield _json_lines(part)


def _is_utf8(path: Path) -> bool:
    """Whether a file looks like text in UTF-8; False too where `read_text` says what is wrong."""
    try:
        with open_unpacked(path) as file:
            head = file.read(8)
    except (OSError, UserError):
        return False
    is_text = not head.startswith((*_ARCHIVES, *_TABLES))
    return is_text and json.detect_encoding(head).startswith("utf-8")


def read_json_file(path: Path) -> SourceRows:
    """Reads a JSON list of objects, a single object, or JSON lines under the wrong name.

    Raises:
      UserError: as `read_text`; or the file is not JSON, with line and column.
    """
    text = read_text(path)
    try:
        value = _loads(text)
    except _NotJson as error:
        first = next((line for line in text.split("\n") if line.strip()), "")
        try:
            is_lines = isinstance(_loads(first), dict)
        except _NotJson:
            is_lines = False
        if is_lines:
            return _json_lines(enumerate(text.split("\n"), start=1))
        raise UserError(f"{path}, line {error.line}, column {error.column}: {error}") from error
    return as_rows(value if isinstance(value, list) else [value], "item")


def read_csv(path: Path, delimiter: str = ",") -> SourceRows:
    """Reads CSV with a header.

    Args:
      path: of the file.
      delimiter: between the fields of a row.

    Raises:
      UserError: as `read_text`; or the header has a name twice, or a quote is never closed.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    found = SourceRows()
    text = io.StringIO(read_text(path), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1  # the line where the current row begins: quoted fields may hold line ends
    try:
        for cells in reader:
            place, start = f"line {start}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                _check_header(path, header)
            elif len(cells) != len(header):
                reason = f"has {len(cells)} fields, and the header {len(header)}"
                found.unreadable.append(Unreadable(place, reason))
            elif bad := [name for name, cell in zip(header, cells, strict=True) if _bytes_in(cell)]:
                reason = f"the column {bad[0]!r} is not UTF-8 text"
                found.unreadable.append(Unreadable(place, reason))
            else:
                found.add(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}, in the row that begins at line {start}: {error}") from error
    return found


def read_tsv(path: Path) -> SourceRows:
    """Reads tab-separated values with a header; fields are quoted as in CSV.

    Raises:
      UserError: as `read_csv`.
    """
    return read_csv(path, "\t")


def _check_header(path: Path, header: list[str]) -> None:
    if any(map(_bytes_in, header)):
        raise UserError(f"{path}, line 1: the header is not UTF-8 text")
    for number, name in enumerate(header, start=1):
        if name in header[: number - 1]:
            raise UserError(
                f"{path}, line 1: column {number} has the name {name!r} of column "
                f"{header.index(name) + 1}: rename or remove one of them"
            )


def _bytes_in(text: str) -> bool:
    return not text.isascii() and _BAD_BYTE.search(text) is not None


class _NotJson(ValueError):
    """Text that is not JSON, with line and column (both from 1)."""

    def __init__(self, message: str, line: int, column: int):
        super().__init__(message)
        self.line, self.column = line, column


def _loads(text: str) -> Any:
    if _bytes_in(text):
        found = _BAD_BYTE.search(text)
        assert found is not None
        byte = ord(found.group()) - 0xDC00
        raise _NotJson(f"the byte 0x{byte:02x} is not UTF-8 text", *_position(text, found.start()))
    try:
        return json.loads(text, object_pairs_hook=json_object)
    except json.JSONDecodeError as error:
        raise _NotJson(f"not JSON ({error.msg})", error.lineno, error.colno) from error
    except RecursionError as error:
        message = f"lists and objects in {MOST_LEVELS} levels and more"
        raise _NotJson(message, *_position(text, _deepest(text))) from error
    except ValueError as error:  # a number of thousands of digits
        raise _NotJson(f"not JSON ({error})", 1, 1) from error


def _deepest(text: str) -> int:
    """Where the first bracket above the limit of levels is."""
    level = 0
    for match in _BRACKETS.finditer(text):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match.group(), 0)
        if level > MOST_LEVELS:
            return match.start()
    return 0


def _position(text: str, index: int) -> tuple[int, int]:
    """Line and column of a character, both from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _json_lines(lines: Iterable[tuple[int, str]]) -> SourceRows:
    """The rows of numbered lines."""
    found = SourceRows()
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = _loads(line)
        except _NotJson as error:
            reason = f"column {error.column}: {error}"
            found.unreadable.append(Unreadable(f"line {number}", reason))
        else:
            found.add(f"line {number}", row)
    return found
