"""Settings of stages and rooms: frozen dataclasses read from sections of a config."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from stair_jax.errors import UserError

T = TypeVar("T")


def read_settings(cls: type[T], section: Mapping[str, Any], where: str) -> T:
    """Makes a settings dataclass of a config section; absent fields keep their defaults.

    Args:
      cls: a dataclass that checks its own values.
      section: field name to value; lists become tuples.
      where: the section's place in the config, for messages.

    Raises:
      UserError: a field that `cls` does not have.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for name in section:
        if name not in known:
            raise UserError(f"{where} has no field {name!r}: it has {', '.join(known)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in section.items()})


def require(holds: bool, message: str) -> None:
    """Raises a UserError with `message` unless `holds`."""
    if not holds:
        raise UserError(message)
