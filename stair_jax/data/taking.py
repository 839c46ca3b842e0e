"""The rows of a source as what they are wanted for, with those that are left out and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from stair_jax.data.own_rows import check_own, repeated_ids
from stair_jax.data.records import PathPair, Prompt, Record, SftRow, StepPair
from stair_jax.data.schema import ReadingOptions, Use
from stair_jax.data.schemas import Dropped, common_columns, convert
from stair_jax.data.text_files import Place, SourceRows, Unreadable

Purpose = Literal["prompts", "sft", "dpo", "prm"]  # the fields of `files`
RECORDS: Mapping[Purpose, type[Record]] = {
    "prompts": Prompt,
    "sft": SftRow,
    "dpo": StepPair,
    "prm": PathPair,
}
OWN = "our own columns"
_UNIQUE = (Prompt, SftRow)  # records whose ids are unique in a file


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
    record = RECORDS[purpose]
    is_known = purpose in get_args(Use) and bool(found.rows)
    if is_known and not set(record.required()) <= set(common_columns(found)):
        made = convert(found, cast(Use, purpose), options, where, name, any_kind)
        rows = [Place(place, one.to_dict()) for place, one in made.rows]
        taken = Taken(made.name, rows, made.dropped, made.unreadable, made.notes)
    else:
        taken = Taken(OWN, *check_own(found, record, options.keep))
    if record in _UNIQUE:
        repeated = repeated_ids(taken.rows)
        places = {place for place, _ in repeated}
        taken.rows = [row for row in taken.rows if row.place not in places]
        taken.unreadable += repeated
    taken.unreadable = [*found.unreadable, *taken.unreadable]
    return taken
