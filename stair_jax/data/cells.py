"""Values of a row as JSON has them, whatever reader they are from.

JSON lines can hold text, numbers, lists and objects. Tables hold dates and decimals besides, and
JSON itself can hold what no stage can use: keys that come twice, half of a surrogate pair, brackets
without end. A value is converted, or refused with the name of its column.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

MOST_LEVELS = 100  # of lists and objects inside each other; those who write JSON recurse over them
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = {int, float, bool, type(None)}


class BadCell(ValueError):
    """Raised for a value that cannot stand in a row; the message names its column."""


class Repeated(dict[str, Any]):
    """A JSON object that has a key more than once."""

    def __init__(self, items: list[tuple[str, Any]], key: str):
        """The object of `items`, of which `key` comes again."""
        super().__init__(items)
        self.key = key


def json_object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook` of `json.loads`: an object, marked where a key comes twice."""
    made = dict(items)
    if len(made) == len(items):
        return made
    keys = [key for key, _ in items]
    return Repeated(items, next(key for key in keys if keys.count(key) > 1))


def clean_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row whose values are JSON's: dates and times as ISO 8601 text, decimals as numbers.

    Numbers that are not finite stay as they are: see `numbers.py`.

    Raises:
      BadCell: a value has no such form; names the column.
    """
    return _clean(row, "", 0)


def _clean(value: Any, column: str, level: int) -> Any:
    kind = type(value)
    if kind is str:
        if not value.isascii() and _SURROGATE.search(value):
            raise BadCell(
                f"{_name(column)} contains a lone surrogate (\\ud800 to \\udfff), "
                "which is not valid text: remove it"
            )
        return value
    if kind in _PLAIN:
        return value
    if isinstance(value, Mapping | list | tuple) and level == MOST_LEVELS:
        raise BadCell(f"{_name(column)} has lists and objects in {MOST_LEVELS} levels and more")
    if isinstance(value, Repeated):
        raise BadCell(f"{_name(column)} has the key {value.key!r} twice: remove one of them")
    if isinstance(value, Mapping):
        prefix = f"{column}." if column else ""
        for key in value:
            _clean(str(key), column, level)
        return {str(key): _clean(v, f"{prefix}{key}", level + 1) for key, v in value.items()}
    if isinstance(value, list | tuple):
        if set(map(type, value)) <= _PLAIN:
            return list(value)
        return [_clean(item, f"{column}[{n}]", level + 1) for n, item in enumerate(value)]
    for known, convert in _CONVERTERS.items():
        if isinstance(value, known):
            return convert(value)
    raise BadCell(f"{_name(column)} holds {kind.__name__}, which JSON lines cannot hold: drop it")


def _decimal(value: Decimal) -> int | float:
    is_whole = value.is_finite() and value == value.to_integral_value()
    return int(value) if is_whole else float(value)


def _name(column: str) -> str:
    return f"the column {column[:100]!r}" if column else "the row"


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    datetime.datetime: lambda value: value.isoformat(),
    datetime.date: lambda value: value.isoformat(),
    datetime.time: lambda value: value.isoformat(),
    datetime.timedelta: lambda value: value.total_seconds(),
    Decimal: _decimal,
}
