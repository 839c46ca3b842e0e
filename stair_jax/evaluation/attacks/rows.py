"""Files of texts that attacks take from their users."""

from collections.abc import Mapping, Sequence
from typing import Any

from stair_jax.data.sources import read_source
from stair_jax.errors import UserError


def read_rows(path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(place, row) of a file, all of whose rows can be read.

    Raises:
      UserError: there is no such file, it has no rows, or one cannot be read.
    """
    found = read_source(path)
    if found.unreadable:
        place, reason = found.unreadable[0]
        raise UserError(f"{path}, {place}: {reason}")
    if not found.rows:
        raise UserError(f"{path} has no rows")
    return [(f"{path}, {place}", row) for place, row in found.rows]


def read_texts(path: str, *forms: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of a file, row by row.

    Args:
      path: of the file.
      *forms: names of the columns; the first form that the row has counts.

    Raises:
      UserError: as `read_rows`, or a row has no such columns with texts.
    """
    return [texts_of(row, where, *forms) for where, row in read_rows(path)]


def texts_of(row: Mapping[str, Any], where: str, *forms: Sequence[str]) -> tuple[str, ...]:
    """The texts of a row, see `read_texts`."""
    for form in forms:
        texts = [row.get(name) for name in form]
        if all(isinstance(text, str) and text.strip() for text in texts):
            return tuple(map(str, texts))
    wanted = " or ".join("{" + ", ".join(form) + "}" for form in forms)
    raise UserError(f"{where}: it must have texts in {wanted}: its columns are {', '.join(row)}")
