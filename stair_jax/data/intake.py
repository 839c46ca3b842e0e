"""What a run takes of a source: rows of our columns as they are, others as rows of ours."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from stair_jax.data.own_rows import check_own, repeated_ids
from stair_jax.data.records import Record
from stair_jax.data.schema import ReadingOptions, Use
from stair_jax.data.schemas import Converter, Dropped, common_columns
from stair_jax.data.sources import read_parts, source_name
from stair_jax.data.text_files import Place, SourceRows, Unreadable


@dataclass
class Intake:
    """The rows of one source, of which a part at a time is in memory.

    Attributes:
      source: where they are, see `read_source`.
      use: what they are for; one of `Use`, or another where rows have our columns alone.
      record: what they become.
      options: how they are read.
      unique_ids: whether rows are left out whose id one before has.
      title: the source with the name of its format, for messages.
      total: rows that were found.
      kept: those that were taken.
      dropped: those that are left out for what they say.
      unreadable: those that cannot be read.
      notes: how often something was passed over within rows that are taken.
    """

    source: str
    use: str
    record: type[Record]
    options: ReadingOptions
    unique_ids: bool
    title: str = ""
    total: int = 0
    kept: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Reads the source, which has one format: that of its first part.

        So rows of the user keep what no record knows, and the schema number that they have or lack.

        Raises:
          UserError: as `read_parts` and `Converter`.
        """
        self.title = self.source
        parts = read_parts(self.source)
        first = next(parts, SourceRows())
        converter = self._converter(first)
        ids: dict[Any, str] = {}
        for part in itertools.chain([first], parts):
            self.total += len(part)
            self.unreadable += part.unreadable
            rows = self._take_own(part) if converter is None else self._take(part, converter)
            if self.unique_ids:
                rows = self._without_repeated(rows, ids)
            self.kept += len(rows)
            yield from (row for _, row in rows)
        if converter is not None:
            converter.check_kinds()

    def _converter(self, first: SourceRows) -> Converter | None:
        """What makes rows of ours of the source; None: they are."""
        if self.use not in get_args(Use) or not first.rows:
            return None
        columns = common_columns(first)
        if set(self.record.required()) <= set(columns):
            return None
        use: Any = self.use
        converter = Converter(columns, use, self.options, self.source, source_name(self.source))
        self.title = f"{self.source} is {converter.schema.name}"
        return converter

    def _take_own(self, part: SourceRows) -> list[Place]:
        rows, dropped, unreadable, notes = check_own(part, self.record, self.options.keep)
        self.dropped += dropped
        self.unreadable += unreadable
        self.notes += notes
        return rows

    def _take(self, part: SourceRows, converter: Converter) -> list[Place]:
        made = converter.convert(part)
        self.dropped += made.dropped
        self.unreadable += made.unreadable
        self.notes = made.notes
        return [Place(place, record.to_dict()) for place, record in made.rows]

    def _without_repeated(self, rows: list[Place], ids: dict[Any, str]) -> list[Place]:
        repeated = repeated_ids(rows, ids)
        self.unreadable += repeated
        places = {place for place, _ in repeated}
        return [row for row in rows if row.place not in places]
