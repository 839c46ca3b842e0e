"""Settings: frozen dataclasses whose fields state their type, range and meaning.

A field is declared once, in a subclass of `Settings`:

    @dataclass(frozen=True)
    class Example(Settings):
        '''What it is for.

        Attributes:
          beta: what the field means.
        '''

        beta: float = setting(0.1, above=0)

From that declaration follow the check of a value from a config file (`build`), the parsing of a
value from the command line (`settings_text.py`) and the help (`describe`). Nothing here knows which
settings there are.
"""  # noqa: D214 - the section is that of the example

import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from stair_jax.addresses import require_local
from stair_jax.errors import UserError, did_you_mean
from stair_jax.settings_rules import UNSET, Rule, is_number

__all__ = ["UNSET", "Rule", "Settings", "build", "describe", "setting"]

T = TypeVar("T")
_RULE = "rule"
_LARGEST_INT = 2**63 - 1  # of the machine's whole numbers


def setting(default: Any, *, metadata: Mapping[str, Any] | None = None, **rule: Any) -> Any:
    """A field of settings with a default and a `Rule`.

    Args:
      default: of the field; a function without arguments makes a fresh one each time (as for a
        field that is a dataclass or a mapping).
      metadata: more metadata for the dataclass field.
      **rule: see `Rule`.
    """
    about = {_RULE: Rule(**rule), **(metadata or {})}
    if callable(default):
        return field(default_factory=default, metadata=about)
    return field(default=default, metadata=about)


def rule_of(info: "dataclasses.Field[Any]") -> Rule:
    """The rule of a dataclass field; one that states nothing where it was not made by `setting`."""
    return info.metadata.get(_RULE, Rule())


class Settings:
    """Base of all settings: each value has the type and the range of its field.

    A subclass with rules over several fields adds them in its own `__post_init__`, behind a call
    of this one.
    """

    def __post_init__(self) -> None:
        """Checks and converts the values (an int to a float, a list to a tuple).

        Raises:
          UserError: names the field that cannot be.
        """
        for info in fields(self):  # type: ignore[arg-type]
            value = _checked(type(self), info, getattr(self, info.name), info.name)
            object.__setattr__(self, info.name, value)


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Types of the fields of a dataclass by name."""
    return typing.get_type_hints(cls)


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Settings from a section of a config; absent fields keep their defaults.

    Args:
      cls: a subclass of `Settings`.
      values: field name to value; sections of nested settings are mappings.
      where: the section's place in the config, for messages, such as "config.dpo".

    Raises:
      UserError: a field that `cls` does not have, or a value that cannot be; names its place.
    """
    converted = check_section(cls, values, where)
    try:
        return cls(**converted)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_section(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a section, each with the type and range of its field.

    Rules over several fields are not looked at, since a section may be completed by another one.

    Raises:
      UserError: as `build`.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}: it must be a section with fields")
    known = {info.name: info for info in fields(cls)}
    converted = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where} has no field {name!r}: {did_you_mean(str(name), known)}")
        converted[name] = _checked(cls, known[name], value, f"{where}.{name}")
    return converted


def values_of(settings: Any, keep: "typing.Callable[[dataclasses.Field[Any], Any], bool]") -> Any:
    """Settings as nested dicts, of the fields that `keep`, told their values, lets through."""
    if is_dataclass(settings) and not isinstance(settings, type):
        return {
            info.name: values_of(getattr(settings, info.name), keep)
            for info in fields(settings)
            if keep(info, getattr(settings, info.name))
        }
    return settings


@dataclass(frozen=True)
class FieldHelp:
    """What there is to say of one field, for `--help`.

    Attributes:
      name: dotted, below the settings that were asked for.
      type: in words.
      default: as it would be written on the command line.
      rule: see `Rule`.
      text: from the docstring of its class.
    """

    name: str
    type: str
    default: str
    rule: Rule
    text: str


def describe(cls: type, prefix: str = "") -> Iterator[FieldHelp]:
    """The fields of settings in their order, those of nested settings behind their own."""
    texts = attribute_texts(cls)
    own = inspect.get_annotations(cls)  # come first, before those of the bases
    for info in sorted(fields(cls), key=lambda info: info.name not in own):
        hint, name = type_hints(cls)[info.name], f"{prefix}{info.name}"
        if nested := nested_settings(hint):
            yield from describe(nested, f"{name}.")
            continue
        rule = rule_of(info)
        yield FieldHelp(
            name, expected(hint, rule), repr(default_of(info)), rule, texts.get(info.name, "")
        )


def default_of(info: "dataclasses.Field[Any]") -> Any:
    """The default of a field."""
    if info.default_factory is not dataclasses.MISSING:
        return info.default_factory()
    return info.default


def nested_settings(hint: Any) -> type | None:
    """The dataclass that a field holds (or may hold, beside None); None: it holds none."""
    for part in type_alternatives(hint):
        if is_dataclass(part) and isinstance(part, type):
            return part
    return None


def mapping_values(hint: Any) -> Any:
    """The type of the values of a field that maps free names to them; None: it maps none."""
    for part in type_alternatives(hint):
        origin = get_origin(part)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return get_args(part)[1]
    return None


def attribute_texts(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say below "Attributes:", by field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        about = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for _, name, text in re.findall(r"^( {2,4})(\w+): (.*(?:\n\1 +\S.*)*)", about, re.M):
            found[name] = " ".join(text.split())
    return found


def require(holds: bool, message: str) -> None:
    """Raises a UserError with `message` unless `holds`."""
    if not holds:
        raise UserError(message)


def _checked(cls: type, info: "dataclasses.Field[Any]", value: Any, where: str) -> Any:
    """The value of a field, converted to its type and in its range."""
    hint, rule = type_hints(cls)[info.name], rule_of(info)
    converted = convert(value, hint, where, rule)
    for place, item in _items(converted, where):
        if isinstance(item, str):
            require_local(item, place)
        if is_number(item) and (wanted := rule.refusal(item)):
            shown = _shown(value if place == where else item)
            raise UserError(f"{place} is {shown}: it must be {wanted}")
        if rule.choices and isinstance(item, str) and item not in rule.choices:
            raise UserError(_unknown_choice(where, item, rule.choices))
    return converted


def _items(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(place, value) of what a field holds: itself, or the items of a tuple or a mapping."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _items(item, f"{where}.{name}")
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from _items(item, f"{where}[{number}]")
    else:
        yield where, value


def convert(value: Any, hint: Any, where: str, rule: Rule = Rule()) -> Any:
    """A value as the type `hint` wants it.

    Raises:
      UserError: it is of another type, or a number that is not finite.
    """
    for part in type_alternatives(hint):
        matches, converted = _convert_to(value, part, where)
        if matches:
            return converted
    literals = [choice for part in type_alternatives(hint) for choice in _choices(part)]
    if literals and isinstance(value, str):
        raise UserError(_unknown_choice(where, value, [str(choice) for choice in literals]))
    raise UserError(f"{where} is {_shown(value)}: it must be {expected(hint, rule)}")


def _convert_to(value: Any, hint: Any, where: str) -> tuple[bool, Any]:
    """Whether a value is of a type that is no union, and the value as this type has it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True, value
    if hint is type(None):
        return value is None, None
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments), value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, None
        items = (convert(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
        return True, tuple(items)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            return False, None
        return True, {
            name: convert(item, arguments[1], f"{where}.{name}") for name, item in value.items()
        }
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return True, value
        return (True, build(hint, value, where)) if isinstance(value, Mapping) else (False, None)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (True, float(value)) if is_number and _is_finite(value) else (False, None)
    if hint is int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and abs(value) <= _LARGEST_INT, value
    return isinstance(value, hint), value


def _shown(value: Any) -> str:
    """A value in a message."""
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of too many digits"


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number above all floats
        return False


def expected(hint: Any, rule: Rule = Rule()) -> str:
    """A type and a range in words: "a number above 0"."""
    words = " or ".join(dict.fromkeys(_words(part, rule) for part in type_alternatives(hint)))
    return f"{words} {rule.describe()}".strip()


def _words(hint: Any, rule: Rule) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        return f"a tuple, each {expected(arguments[0], rule)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping from names, each to {expected(arguments[1])}"
    if is_dataclass(hint):
        return "a section with fields"
    if hint is str and rule.choices:
        return f"one of {', '.join(map(repr, rule.choices))}"
    known = {
        float: "a finite number",
        int: "a whole number",
        bool: "True or False",
        str: "text",
        type(None): "None",
    }
    return known.get(hint, "any value")


def type_alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; a type that is none by itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _unknown_choice(where: str, value: str, choices: Collection[str]) -> str:
    near = difflib.get_close_matches(value, choices, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return f"{where} is {_shown(value)}: it must be one of {', '.join(map(repr, choices))}{hint}"
