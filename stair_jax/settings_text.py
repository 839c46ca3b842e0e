"""Values of settings as text: what stands on the command line, by the type of the field."""

import ast
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

from stair_jax.errors import UserError
from stair_jax.settings import convert, expected, type_alternatives

_TRUE, _FALSE, _NONE = ("true", "1", "yes", "on"), ("false", "0", "no", "off"), ("none", "null")


def parse_text(text: str, hint: Any, where: str) -> Any:
    """The value that `text` means for a field of type `hint`.

    Text is taken as it is; numbers, True and False, None as in Python; a tuple is a Python tuple or
    list, or words with commas between them; a mapping is a Python or JSON dict.

    Raises:
      UserError: it means no value of that type; says what would.
    """
    for part in _by_strictness(text, hint):
        try:
            return convert(_read(text, part), part, where)
        except (ValueError, SyntaxError, RecursionError, MemoryError, UserError):
            continue
    raise UserError(f"{where} is {text!r}: it must be {expected(hint)}")


def _by_strictness(text: str, hint: Any) -> list[Any]:
    """The alternatives of a type, text last, as any text is text.

    Where a field is text or a tuple of texts, brackets make a tuple, and nothing else does.
    """
    parts = sorted(type_alternatives(hint), key=lambda part: part is str)
    tuples = [part for part in parts if get_origin(part) is tuple]
    if str in parts and tuples:
        is_tuple = text.strip().startswith(("(", "["))
        parts = [part for part in parts if (part in tuples) == is_tuple]
    return parts


def _read(text: str, hint: Any) -> Any:
    """The value of a type that is no union.

    Raises:
      ValueError: the text means none.
    """
    origin = get_origin(hint)
    if hint is str:
        return text
    if hint is bool:
        return _read_bool(text)
    if hint is int:
        return int(text)
    if hint is float:
        return float(text)
    if hint is type(None):
        if text.lower() in _NONE:
            return None
        raise ValueError(text)
    if origin is Literal:
        return next(choice for choice in (*get_args(hint), text) if str(choice) == text)
    if origin is tuple:
        return _read_tuple(text, get_args(hint)[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _read_literal(text)
    if is_dataclass(hint):
        raise ValueError("set its fields, one by one")
    return _read_any(text)


def _read_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _read_tuple(text: str, item: Any) -> Any:
    """A Python tuple or list, or items with commas between them."""
    if text.strip().startswith(("(", "[")):
        value = ast.literal_eval(text.strip())
        return value if isinstance(value, list | tuple) else (value,)
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    return tuple(parse_text(part, item, "an item") for part in parts)


def _read_literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _read_any(text: str) -> Any:
    try:
        return _read_literal(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
