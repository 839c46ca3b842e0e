"""Values of a model's `config.json`, each with its type and range, or refused by name."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from stair_jax.errors import UserError

CONFIG = "the model's config.json"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def number(
    values: Mapping[str, Any],
    name: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    where: str = CONFIG,
) -> float:
    """The value of a field as a finite number in a range.

    Args:
        values: the fields.
        name: of the field, which must be there.
        above: the number is above this.
        least: the number is at least this.
        most: the number is at most this.
        where: the place of the fields, for messages.

    Raises:
        UserError: the value is no such number; text that looks like one is none either.
    """
    value = values[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number may be above all floats; comparisons with it are exact.
    if is_number and above < value and least <= value <= most and abs(value) < math.inf:
        return float(value)
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", least), ("at most", most))
        if math.isfinite(bound)
    ]
    wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise UserError(f"{name} in {where} must be {wanted}, not {shown(value)}")


def count(values: Mapping[str, Any], name: str, most: int, where: str = CONFIG) -> int:
    """The value of a field as a whole number from 1 to `most`.

    Raises:
        UserError: the value is no such number.
    """
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(
            f"{name} in {where} must be a positive whole number up to {most}, not {shown(value)}"
        )
    return value


def flag(values: Mapping[str, Any], name: str, where: str = CONFIG) -> bool:
    """The value of a field that is true or false.

    Raises:
        UserError: the value is something else, such as the text "no".
    """
    value = values[name]
    if not isinstance(value, bool):
        raise UserError(f"{name} in {where} must be true or false, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value in a message: a long one is shortened."""
    return _SHORT.repr(value)
