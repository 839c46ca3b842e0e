"""Conversion of rows whose columns are known into rows of our own formats."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stair_jax.data import common_formats, public, released
from stair_jax.data.records import SCHEMA_COLUMN, Record
from stair_jax.data.schema import LeftOut, Reader, Reading, ReadingOptions, Row, Schema, Use
from stair_jax.data.text_files import SourceRows, Unreadable
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint

SCHEMAS = (*public.SCHEMAS, *released.SCHEMAS, *common_formats.SCHEMAS)
_ID_LENGTH = 16  # hexadecimal digits of a hash


class Dropped(NamedTuple):
    """A row that is left out for what it says, by its place."""

    place: str
    reason: str


@dataclass
class Converted:
    """Rows of a source as records.

    Attributes:
      rows: the records, each with the place that it is from.
      name: of the format that the source has.
      dropped: rows that can be read and are left out.
      unreadable: rows that are not as those of the format are.
      notes: how often something was passed over within rows that are kept.
    """

    rows: list[tuple[str, Record]] = field(default_factory=list)
    name: str = ""
    dropped: list[Dropped] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def left_out(self) -> Counter[str]:
        """How many rows were dropped, by reason."""
        return Counter(reason for _, reason in self.dropped)


def common_columns(found: SourceRows) -> list[str]:
    """The columns of most rows, so that a single odd row decides nothing; in order."""
    counts = Counter(column for _, row in found.rows for column in row)
    return [column for column, count in counts.items() if 2 * count >= len(found.rows)]


def convert(
    found: SourceRows,
    use: Use,
    options: ReadingOptions,
    where: str,
    name: str = "",
    any_kind: bool = False,
) -> Converted:
    """Turns rows of a known format into records: `Prompt`, `SftRow`, or `StepPair` without path.

    An id is the format's name with the row's own id, or with a hash of the content, so that it
    never changes; a row of the same content as one before is left out.

    Args:
      found: at least one row, all of one format.
      use: "prompts", "sft" or "dpo".
      options: how they are read.
      where: name of the rows in messages, e.g. a file.
      name: of the source, by which `options.kinds` may give the kind of rows without a source.
      any_kind: take rows of a kind that is not known, with "" for it.

    Raises:
      UserError: the columns are of no known format, or of one without this use; or the kind of a
        source is not known.
    """
    converter = Converter(common_columns(found), use, options, where, name)
    result = converter.convert(found)
    if not any_kind:
        converter.check_kinds()
    return result


class Converter:
    """Turns rows of one source into records, as `convert` says, a part of them at a time.

    Attributes:
      schema: the format of the source.
    """

    def __init__(
        self,
        columns: Sequence[str],
        use: Use,
        options: ReadingOptions,
        where: str,
        name: str = "",
    ):
        """For a source with these columns.

        Raises:
          UserError: as `recognize`.
        """
        self.schema = recognize(columns, use, where)
        self._read, self._where, self._name = self.schema.uses[use], where, name
        self._seen: set[bytes] = set()
        self._reading = Reading(options, name)

    def convert(self, found: SourceRows) -> Converted:
        """The records of the next part."""
        result, before = Converted(name=self.schema.name), self._reading.notes.copy()
        for place, row in found.rows:
            try:
                record = self._record(row)
            except LeftOut as reason:
                result.dropped.append(Dropped(place, str(reason)))
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                result.unreadable.append(Unreadable(place, _reason(error, self.schema)))
            else:
                result.rows.append((place, record))
        result.notes = self._reading.notes - before
        return result

    def check_kinds(self) -> None:
        """Checks that each row so far had a kind.

        Raises:
          UserError: names the sources whose kind is not known.
        """
        _check_kinds(self._reading.unknown, self._where, self._name)

    def _record(self, row: Row) -> Record:
        schema = self.schema
        record = _read(schema, self._read, row, self._reading)
        content = _content(record)
        digest = bytes.fromhex(content)
        if digest in self._seen:
            raise LeftOut("the same as a row before")
        self._seen.add(digest)
        own = row.get(schema.id_column) if schema.id_column else None
        is_missing = own is None or own == "" or own != own  # NaN, of tools for tables
        id = content[:_ID_LENGTH] if is_missing else own
        return replace(record, id=f"{schema.name}:{id}")


def _read(schema: Schema, read: Reader, row: Row, reading: Reading) -> Record:
    missing = schema.columns - row.keys()
    if missing:
        raise KeyError(min(missing))
    record = read(row, reading)
    _check_texts(record)
    return record


def _reason(error: Exception, schema: Schema) -> str:
    if isinstance(error, KeyError):
        return f"lacks the column {error.args[0]!r} of {schema.name}"
    return f"not as rows of {schema.name} are: {error}"


def _check_kinds(unknown: Collection[str], where: str, name: str) -> None:
    named = sorted(source for source in unknown if source)
    if named:
        raise UserError(
            f"{where}: the kind of the sources {', '.join(map(repr, named))} is unknown: "
            'set files.kinds, e.g. {"name of a source": "safety", "*": "helpfulness"}'
        )
    if unknown:
        raise UserError(
            f"{where}: the rows have neither a kind nor a source: set files.kinds, e.g. "
            f'{{"{name or "*"}": "helpfulness"}}, to say whether they are about "safety" or '
            '"helpfulness"'
        )


def _content(record: Record) -> str:
    """Hash of what a row says, whatever its id and whichever schema number it is written with."""
    fields = record.to_dict()
    return fingerprint({k: v for k, v in fields.items() if k not in ("id", SCHEMA_COLUMN)})


def _check_texts(record: Record) -> None:
    for name in record.required():
        value = getattr(record, name)
        if name in ("id", "path"):
            continue
        if not isinstance(value, str):
            raise TypeError(f"{name} is {str(value)[:60]}, not text")
        if name not in ("source", "kind") and not value.strip():
            raise LeftOut(f"{name} is empty")


def recognize(columns: Sequence[str], use: Use, where: str) -> Schema:
    """The format that has these columns.

    If several fit, data sets come before common formats, and of these the most specific one: the
    one whose columns include those of all others.

    Raises:
      UserError: none or no single one fits, or it does not have this use.
    """
    fitting = [schema for schema in SCHEMAS if schema.fits(columns)]
    first = [s for s in fitting if s.tier == min(each.tier for each in fitting)]
    best = [s for s in first if all(s.columns >= other.columns for other in first)]
    shown = ", ".join(columns)
    if len(best) != 1:
        what = "are those of " + " and ".join(s.name for s in first) if first else "are unknown"
        raise UserError(
            f"{where}: its columns ({shown}) {what}; for {use} it may have {_choices(use)}"
        )
    if use not in best[0].uses:
        raise UserError(
            f"{where} is {best[0].name} by its columns ({shown}), which is not for {use}: it may "
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
