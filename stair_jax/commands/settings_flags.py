"""Flags of a verb that are the fields of settings: types, ranges and help follow from these."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar

from stair_jax.errors import UserError
from stair_jax.settings import Settings, build, describe, nested_settings, type_hints
from stair_jax.settings_text import parse_text

S = TypeVar("S", bound=Settings)


def add_settings_flags(parser: argparse.ArgumentParser, cls: type[Settings]) -> None:
    """Adds `--field-name=VALUE` for each field, and `--section.field=VALUE` for nested settings.

    Those of nested settings are not listed in the help of the verb.
    """
    for field in describe(cls):
        is_nested = "." in field.name
        text = f"{field.text} Default: {field.default}.".replace("%", "%%")
        parser.add_argument(
            _flag(field.name),
            dest=field.name,
            metavar="VALUE",
            default=None,
            help=argparse.SUPPRESS if is_nested else text,
        )


def read_settings(options: argparse.Namespace, cls: type[S]) -> S:
    """The settings that the flags of `add_settings_flags` give.

    Raises:
      UserError: names the flag whose value cannot be.
    """
    values: dict[str, Any] = {}
    for field in describe(cls):
        text = getattr(options, field.name)
        if text is not None:
            *sections, name = field.name.split(".")
            place: dict[str, Any] = values
            owner: type = cls
            for section in sections:
                place = place.setdefault(section, {})
                owner = _nested(owner, section)
            place[name] = parse_text(text, type_hints(owner)[name], _flag(field.name))
    return _build(cls, values)


def _build(cls: type[S], values: Mapping[str, Any]) -> S:
    try:
        return build(cls, values, "-")
    except UserError as error:
        message = str(error).removeprefix("-: ").removeprefix("-.")
        name, _, rest = message.partition(" ")
        is_field = name in {field.name for field in describe(cls)}
        raise UserError(f"{_flag(name)} {rest}" if is_field else message) from error


def _nested(cls: type, section: str) -> type:
    nested = nested_settings(type_hints(cls)[section])
    assert nested is not None
    return nested


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
