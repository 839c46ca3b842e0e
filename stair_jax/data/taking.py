"""The rows of a source as what they are wanted for, with those that are left out and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from stair_jax.data.own_rows import check_own, repeated_ids
from stair_jax.data.records import PathPair, Prompt, Record, SftRow, StepPair
from stair_jax.data.schema import ReadingOptions, Use
from stair_jax.data.schemas import Converter, Dropped, common_columns
from stair_jax.data.text_files import Place, SourceRows, Unreadable

Purpose = Literal["prompts", "sft", "dpo", "prm"]  # the fields of `files`
RECORDS: Mapping[Purpose, type[Record]] = {
    "prompts": Prompt,
    "sft": SftRow,
    "dpo": StepPair,
    "prm": PathPair,
}
OWN = "our own columns"
UNIQUE = (Prompt, SftRow)  # records whose ids are unique in a file


@dataclass
class Taken:
    """What is taken of a source.

    Attributes:
      format: the name of its format, or `OWN`.
      rows: in our columns, each with the place that it is from.
      dropped: rows that are left out for what they say.
      unreadable: rows that cannot be read, or are not as those of the format are.
      notes: how often something was passed over within rows that are taken.
    """

    format: str
    rows: list[Place]
    dropped: list[Dropped]
    unreadable: list[Unreadable]
    notes: Counter[str] = field(default_factory=Counter)


def take(
    found: SourceRows,
    purpose: Purpose,
    options: ReadingOptions,
    where: str,
    name: str = "",
    any_kind: bool = False,
) -> Taken:
    """Takes the rows of our columns as they are, and those of a known format converted.

    Args:
      found: the rows of a source.
      purpose: what they are wanted for.
      options: how public formats are read.
      where: name of the rows in messages.
      name: of the source, see `convert`.
      any_kind: take rows whose kind is not known too, with "" for it.

    Raises:
      UserError: the columns are not known, or not of this purpose; or a kind is not known.
    """
    taker = Taker(found, purpose, options, where, name)
    taken = taker.take(found)
    if not any_kind:
        taker.check_kinds()
    return taken


class Taker:
    """Takes the rows of one source as `take` does, a part of them at a time.

    Attributes:
      format: the name of the format, which is that of the first part, or `OWN`.
    """

    def __init__(
        self,
        first: SourceRows,
        purpose: Purpose,
        options: ReadingOptions,
        where: str,
        name: str = "",
    ):
        """For a source that begins with `first`; the rest is as for `take`.

        Raises:
          UserError: the columns are not known, or not of this purpose.
        """
        self._record, self._keep = RECORDS[purpose], options.keep
        self._places: dict[Any, str] = {}  # of the ids so far
        self._converter: Converter | None = None
        self.format = OWN
        columns = common_columns(first)
        is_known = purpose in get_args(Use) and bool(first.rows)
        if is_known and not set(self._record.required()) <= set(columns):
            self._converter = Converter(columns, cast(Use, purpose), options, where, name)
            self.format = self._converter.schema.name

    def take(self, part: SourceRows) -> Taken:
        """The next rows."""
        if self._converter is None:
            taken = Taken(OWN, *check_own(part, self._record, self._keep))
        else:
            made = self._converter.convert(part)
            rows = [Place(place, one.to_dict()) for place, one in made.rows]
            taken = Taken(made.name, rows, made.dropped, made.unreadable, made.notes)
        if self._record in UNIQUE:
            repeated = repeated_ids(taken.rows, self._places)
            places = {place for place, _ in repeated}
            taken.rows = [row for row in taken.rows if row.place not in places]
            taken.unreadable += repeated
        taken.unreadable = [*part.unreadable, *taken.unreadable]
        return taken

    def check_kinds(self) -> None:
        """Checks that each row so far had a kind.

        Raises:
          UserError: names the sources whose kind is not known.
        """
        if self._converter is not None:
            self._converter.check_kinds()


@dataclass
class Tally:
    """What was taken of a source, without the rows.

    Attributes:
      total: rows that were found.
      kept: those that were taken.
      dropped, unreadable, notes: as of `Taken`.
    """

    total: int = 0
    kept: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, part: SourceRows, taken: Taken) -> None:
        """Counts a part."""
        self.total += len(part)
        self.kept += len(taken.rows)
        self.dropped += taken.dropped
        self.unreadable += taken.unreadable
        self.notes += taken.notes
