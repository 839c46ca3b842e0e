"""The cells of a sweep: which fields of a config have which values, and how a cell is named.

A value is text, and is read as `--config.FIELD=VALUE` is. Several stand behind each other with `;`
between them; where there is none, commas separate them. Within brackets neither does: `0.1,0.2`,
`(1,2),(3,4)`, `{'safety': 5},{'safety': 2}`; `sft,iter1;sft,iter3` has two values with a comma.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ml_collections import ConfigDict

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.run.override import Override

Values = Mapping[str, Sequence[str]]  # by field
Cells = Mapping[str, Mapping[str, str]]  # by name: the value of each varied field

SEED = "seed"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")
_LONGEST_VALUE, _LONGEST = 40, 120  # characters of a value in a name, of a name
_OPEN, _CLOSE = "([{", ")]}"


def parse_vary(flags: Iterable[str]) -> dict[str, list[str]]:
    """The values of each field of `--vary=FIELD=VALUES`; a field that comes again has more.

    Raises:
      UserError: names the flag that has no field, no values, or one of them twice.
    """
    found: dict[str, list[str]] = {}
    for flag in flags:
        field, equals, text = flag.partition("=")
        values = split_values(text)
        if not equals or not field.strip() or not values:
            raise UserError(f"--vary={flag}: write FIELD=VALUE,VALUE, e.g. --vary=dpo.beta=0.1,0.2")
        known = found.setdefault(field.strip().removeprefix("config."), [])
        for value in values:
            if value in known:
                raise UserError(f"--vary={flag}: the value {value!r} comes twice")
            known.append(value)
    return found


def chosen(names: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """The cells whose names match one of the patterns, in their order; all without patterns.

    Raises:
      UserError: names a pattern that no cell matches.
    """
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--only={pattern}: no cell has this name; --list prints the cells")
    return [name for name in names if not patterns or any(fnmatchcase(name, p) for p in patterns)]


def split_values(text: str) -> list[str]:
    """The values of a text, see the top of this module; white space around them is left out.

    An empty text behind the last separator is no value, so that `a,b;` is the one value `a,b`.
    """
    parts = [part.strip() for part in _split(text, ";" if ";" in _outside(text) else ",")]
    return parts if parts[-1] else parts[:-1]


def _outside(text: str) -> str:
    """The text without what is within brackets."""
    return "".join(character for character, depth in _depths(text) if not depth)


def _split(text: str, separator: str) -> list[str]:
    parts = [""]
    for character, depth in _depths(text):
        if character == separator and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _depths(text: str) -> Iterator[tuple[str, int]]:
    """Each character, with how many brackets are open there; those within quotes open none."""
    depth, quote = 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif depth and character in "\"'":
            quote = character
        else:
            depth = max(0, depth + (character in _OPEN) - (character in _CLOSE))
        yield character, depth


def grid(values: Values) -> dict[str, dict[str, str]]:
    """A cell for each combination of the values; one without a name where nothing varies."""
    combinations = itertools.product(*values.values())
    return _named([dict(zip(values, each, strict=True)) for each in combinations])


def pairs(values: Values) -> dict[str, dict[str, str]]:
    """A cell for each place: the first values of all fields, the second ones, and so on.

    Raises:
      UserError: the fields have different numbers of values.
    """
    counts = {field: len(own) for field, own in values.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{field} has {count}" for field, count in counts.items())
        raise UserError(f"--pairs takes as many values of each field: {shown}")
    places = zip(*values.values(), strict=True) if values else [()]
    return _named([dict(zip(values, each, strict=True)) for each in places])


def product(first: Cells, second: Cells) -> dict[str, dict[str, str]]:
    """Each cell of the first with each of the second, whose values count more."""
    return {
        "_".join(filter(None, (name, other))): {**own, **more}
        for name, own in first.items()
        for other, more in second.items()
    }


def read_own(found: Any, where: str) -> dict[str, dict[str, str]]:
    """The cells that `get_sweep()` of a config file gives.

    Args:
      found: {field: list of values}, a grid; or {name of a cell: {field: value}}.
      where: for messages.

    Raises:
      UserError: it is neither, or a name cannot be that of a folder.
    """
    if isinstance(found, ConfigDict):
        found = found.to_dict()
    values = list(found.values()) if isinstance(found, Mapping) else []
    if values and all(isinstance(own, list | tuple) and own for own in values):
        return grid({field: [text_of(value) for value in own] for field, own in found.items()})
    if not values or not all(isinstance(own, Mapping) for own in values):
        raise UserError(
            f"get_sweep() of {where} has to give a dict {{field: [value, ...]}}, or "
            "{name of a cell: {field: value}}"
        )
    for name in found:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"get_sweep() of {where}: {name!r} cannot be the name of a folder")
    return {
        name: {str(field): text_of(value) for field, value in own.items()}
        for name, own in found.items()
    }


def text_of(value: Any) -> str:
    """A value as it stands on the command line."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    return value if isinstance(value, str) else repr(value)


def overrides_of(cell: Mapping[str, str]) -> list[Override]:
    """The values of a cell as overrides of its config."""
    return [Override(field, text, f"{field}={text}") for field, text in cell.items()]


def _named(cells: Sequence[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The cells by names that tell what varies, and can be names of folders."""
    if len(cells) == 1 and not cells[0]:
        return {"": {}}
    fields = _short_names(list(cells[0]) if cells else [])
    names = ["_".join(f"{fields[f]}-{_safe(text)}" for f, text in c.items()) for c in cells]
    counts = Counter(names)
    return {
        _marked(name, cell) if counts[name] > 1 or len(name) > _LONGEST else name: dict(cell)
        for name, cell in zip(names, cells, strict=True)
    }


def _short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each field's name, or all of it where two have the same."""
    last = Counter(field.rpartition(".")[2] for field in fields)
    short = {
        field: tail if last[tail := field.rpartition(".")[2]] == 1 else field for field in fields
    }
    return {field: _safe(name) for field, name in short.items()}


def _safe(text: str) -> str:
    """A text as a part of a name; signs of numbers stay."""
    return "-".join(_UNSAFE.sub(" ", text).split())[:_LONGEST_VALUE] or "empty"


def _marked(name: str, cell: Mapping[str, str]) -> str:
    """A name that no cell of other values has."""
    return f"{name[:_LONGEST]}.{storage.fingerprint(dict(cell))[:6]}"
