"""Conversion of public data sets, recognised by their columns, into rows of our own formats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stair_jax.data.public import SCHEMAS, Kinds, LeftOut, Row, Schema, Use
from stair_jax.data.records import SCHEMA_COLUMN, Record
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint

_ID_LENGTH = 16  # hexadecimal digits of a hash


class Converted(NamedTuple):
    """Records, the data set that they are of, and why other rows were left out, how often."""

    rows: list[Record]
    name: str
    left_out: Counter[str]


def convert(rows: Sequence[Row], use: Use, kinds: Mapping[str, str], where: str) -> Converted:
    """Turns rows of a public data set into records: `Prompt`, `SftRow`, or `StepPair` without path.

    An id is the data set's name with the row's own id, or with a hash of the content, so that it
    never changes; a row of the same content as one before is left out.

    Args:
      rows: at least one, all of one data set.
      use: "prompts", "sft" or "dpo".
      kinds: kind by source, for data sets with sources; "*" is any other source.
      where: name of the rows in messages, e.g. a file.

    Raises:
      UserError: the columns are of no known data set, or of one without this use; a row lacks a
        column or does not have the expected values; or the kind of a source is not known.
    """
    schema = recognize(rows[0], use, where)  # the other rows have to have the same columns
    reader = schema.uses[use]
    made: list[Record] = []
    left_out: Counter[str] = Counter()
    unknown: set[str] = set()
    seen: set[str] = set()
    known = Kinds(kinds, unknown)
    for number, row in enumerate(rows, start=1):
        missing = schema.columns - row.keys()
        if missing:
            raise UserError(
                f"{where}, line {number}, lacks the column {min(missing)!r} of {schema.name}"
            )
        try:
            record = reader(row, known)
            _check_texts(record)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise UserError(
                f"{where}, line {number}: not as rows of {schema.name} are ({error!r})"
            ) from error
        content = _content(record)
        if content in seen:
            left_out["the same as a row before"] += 1
            continue
        seen.add(content)
        own = row.get(schema.id_column) if schema.id_column else None
        name = content[:_ID_LENGTH] if own in (None, "") else own
        made.append(replace(record, id=f"{schema.name}:{name}"))
    if unknown:
        raise UserError(
            f"{where}: the kind of the sources {', '.join(map(repr, sorted(unknown)))} is unknown: "
            'set files.kinds, e.g. {"name of a source": "safety", "*": "helpfulness"}'
        )
    return Converted(made, schema.name, left_out)


def _content(record: Record) -> str:
    """Hash of what a row says, whatever its id and whichever schema number it is written with."""
    fields = record.to_dict()
    return fingerprint({k: v for k, v in fields.items() if k not in ("id", SCHEMA_COLUMN)})


def _check_texts(record: Record) -> None:
    for name, value in vars(record).items():
        is_absent = value is None and name not in record.required()
        if name in ("id", "path") or is_absent:
            continue
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, not text")
        if name != "source" and not value.strip():
            raise LeftOut(f"{name} is empty")


def recognize(row: Row, use: Use, where: str) -> Schema:
    """The data set whose columns a row has.

    If several fit, the most specific one: the one whose columns include those of all others.

    Raises:
      UserError: none or no single one fits, or it does not have this use.
    """
    fitting = [schema for schema in SCHEMAS if schema.fits(row)]
    best = [s for s in fitting if all(s.columns >= other.columns for other in fitting)]
    columns = ", ".join(row)
    if len(best) != 1:
        what = "are those of " + " and ".join(s.name for s in fitting) if fitting else "are unknown"
        raise UserError(
            f"{where}: its columns ({columns}) {what}; for {use} it may have {_choices(use)}"
        )
    if use not in best[0].uses:
        raise UserError(
            f"{where} is {best[0].name} by its columns ({columns}), which is not for {use}: it may "
            f"have {_choices(use)}"
        )
    return best[0]


def _choices(use: Use) -> str:
    """The formats that are accepted for a use, as text for messages."""
    own = {"prompts": "id, prompt, kind, source", "sft": "id, prompt, answer, kind"}
    pairs = "id, prompt, path, chosen, rejected"
    known = [f"our own ({own.get(use, pairs)})"]
    known += [f"{s.name} ({', '.join(sorted(s.columns))})" for s in SCHEMAS if use in s.uses]
    return ", or ".join(("; ".join(known[:-1]), known[-1]))
