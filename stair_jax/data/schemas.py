"""Conversion of public data sets, recognised by their columns, into rows of our own formats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stair_jax.data.public import SCHEMAS, Kinds, LeftOut, Row, Schema, Use
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint

_ID_LENGTH = 16  # hexadecimal digits of a hash


class Converted(NamedTuple):
    """The result of a conversion."""

    rows: list[dict[str, Any]]  # in our format
    name: str  # of the data set
    left_out: Counter[str]  # reason -> number of rows that were dropped


def convert(rows: Sequence[Row], use: Use, kinds: Mapping[str, str], where: str) -> Converted:
    """Converts rows of a public data set into rows of our own format.

    Prompts: {id, prompt, kind, source, reference?}; SFT: {id, prompt, answer, kind}; DPO: {id,
    prompt, kind, path: [], chosen, rejected}. An id is the data set's name with the row's own id or
    a hash of its content, so that it does not depend on the order or selection of rows. Rows with
    the content of an earlier row are dropped.

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
    made: list[dict[str, Any]] = []
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
            fields = reader(row, known)
            _check_texts(fields)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise UserError(
                f"{where}, line {number}: not as rows of {schema.name} are ({error!r})"
            ) from error
        content = fingerprint(fields)
        if content in seen:
            left_out["the same as a row before"] += 1
            continue
        seen.add(content)
        own = row.get(schema.id_column) if schema.id_column else None
        name = content[:_ID_LENGTH] if own in (None, "") else own
        made.append({"id": f"{schema.name}:{name}", **fields})
    if unknown:
        raise UserError(
            f"{where}: the kind of the sources {', '.join(map(repr, sorted(unknown)))} is unknown: "
            'set files.kinds, e.g. {"name of a source": "safety", "*": "helpfulness"}'
        )
    return Converted(made, schema.name, left_out)


def _check_texts(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name == "path":
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
