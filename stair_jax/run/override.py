"""Overrides of a config from the command line, typed by the fields that they set."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_origin

from stair_jax.errors import UserError, did_you_mean
from stair_jax.settings import (
    describe,
    mapping_values,
    nested_settings,
    type_alternatives,
    type_hints,
)
from stair_jax.settings_text import parse_text

_INDEXED = re.compile(r"([\w.]+)\[(\d+)\]")


@dataclass(frozen=True)
class Override:
    """One `--config.FIELD=VALUE` of the command line.

    Attributes:
      field: dotted, below `config`.
      text: the value; None: there is none, which means True.
      flag: as the user wrote it, for messages.
    """

    field: str
    text: str | None
    flag: str


def apply_override(sections: dict[str, Any], types: Mapping[str, Any], override: Override) -> None:
    """Puts the value of an override into its section, as the type of its field.

    Args:
      sections: of the config, changed in place.
      types: of the fields and sections of the config, by name.
      override: of the command line.

    Raises:
      UserError: there is no such field, or the text means no value of its type.
    """
    match = _INDEXED.fullmatch(override.field)
    *path, last = (match[1] if match else override.field).split(".")
    hint = _type_of([*path, last], types, override.flag)
    section: Any = sections
    for name in path:
        if not isinstance(section.get(name), dict):
            section[name] = {}
        section = section[name]
    where = f"{override.flag}: {last}"
    text = override.text
    if text is None:
        if bool not in type_alternatives(hint):
            raise UserError(f"{override.flag} has no value: give it as {override.flag}=VALUE")
        text = "True"
    if match is None:
        section[last] = parse_text(text, hint, where)
        return
    if not any(get_origin(part) is tuple for part in type_alternatives(hint)):
        raise UserError(f"{override.flag}: {last} has no items: set it as a whole")
    items, index = list(section.get(last) or ()), int(match[2])
    if index >= len(items):
        raise UserError(f"{override.flag}: {last} has {len(items)} items, counted from 0")
    (items[index],) = parse_text(f"({text!r},)", hint, where)
    section[last] = tuple(items)


def _type_of(path: Sequence[str], top: Mapping[str, Any], flag: str) -> Any:
    """The type of a field by its path below the config.

    Raises:
      UserError: there is no such field, or it is a section.
    """
    types: Mapping[str, Any] = top
    hint: Any = None
    where = "config"
    for name in path:
        if hint is not None:
            types = _types_below(hint, name)
            if not types:
                raise UserError(f"{flag}: {where} has no fields")
        if name not in types:
            raise _unknown(flag, where, name, types, top)
        hint, where = types[name], f"{where}.{name}"
    if nested_settings(hint) is hint:
        raise UserError(f"{flag}: {where} is a section: set its fields")
    return hint


def _types_below(hint: Any, name: str) -> dict[str, Any]:
    """Types of the fields of a section by name; of a mapping with free names, that of `name`."""
    if cls := nested_settings(hint):
        return {field.name: type_hints(cls)[field.name] for field in fields(cls)}
    values = mapping_values(hint)
    return {} if values is None else {name: values}


def _unknown(
    flag: str, where: str, name: str, known: Iterable[str], top: Mapping[str, Any]
) -> UserError:
    """The message about a field that is not there, with the nearest ones of the whole config."""
    hint = did_you_mean(name, known)
    if hint.startswith("known are"):
        elsewhere = [
            f"config.{section}.{field.name}"
            for section, cls in top.items()
            if isinstance(cls, type) and nested_settings(cls) is cls
            for field in describe(cls)
            if field.name.rpartition(".")[2] == name
        ]
        if elsewhere:
            hint = f"did you mean {' or '.join(elsewhere[:3])}?"
    return UserError(f"{flag}: {where} has no field {name}: {hint}")
