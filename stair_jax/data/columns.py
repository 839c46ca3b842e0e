"""How the fields of a record are read from a row: by their types, as they are declared."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from stair_jax.data.numbers import read_number

Texts = tuple[str, ...]
Tokens = tuple[int, ...]  # token ids
Turns = tuple[Mapping[str, str], ...]  # of a chat: {"role": ..., "content": ...}
_TOKEN_IDS = range(2**31)  # whatever the vocabulary, which is checked where there is one


@dataclass(frozen=True)
class Column:
    """How the values of a field are checked, and what messages call them."""

    is_required: bool
    is_list: bool
    is_number: bool
    form: str
    fits: Callable[[Any], bool]


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and set(map(type, value)) <= {kind}


def _is_ids(value: Any) -> bool:
    return _list_of(int)(value) and all(id in _TOKEN_IDS for id in value)


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict)
        and turn.get("role") in ("user", "assistant")
        and isinstance(turn.get("content"), str)
        for turn in value
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, str)


def as_number(value: Any) -> Any:
    """A number as it was written, or as its text says; None: it is none."""
    number = read_number(value)
    return value if number is not None and not isinstance(value, str) else number


_FORMS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    Texts: ("a list of texts", _list_of(str)),
    Tokens: ("a list of token ids", _is_ids),
    float: ("a number", _is_number),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a number", _is_number),  # tools that know missing values write 3 as 3.0
    Turns: ('a list of turns {"role": "user" or "assistant", "content": text}', _is_turns),
    Any: ("", lambda value: True),
}


_Columns = tuple[tuple[str, Column], ...]
_MADE: dict[type[Any], _Columns] = {}  # functools.cache takes no dataclass, for mypy


def columns_of(record: type[Any]) -> _Columns:
    """The columns of a record, by the types of its fields; those that may be None may be absent."""
    if record in _MADE:
        return _MADE[record]
    columns = []
    for field in dataclasses.fields(record):
        hint = _without_none(field.type)
        is_list, is_number = get_origin(hint) is tuple, hint in (int, float)
        is_required = field.default is not None
        column = Column(is_required, is_list, is_number, *_FORMS[hint])
        columns.append((field.name, column))
    return _MADE.setdefault(record, tuple(columns))


def _without_none(hint: Any) -> Any:
    """`X` of `X | None`, and any other type as it is."""
    parts = get_args(hint)
    return parts[0] if NoneType in parts else hint
