"""What there is to export: the files of a run or of a folder, and their rows as records."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stair_jax.data.export.formats import RECORDS, Use
from stair_jax.data.records import KINDS, Record
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.schemas import SCHEMAS, common_columns
from stair_jax.data.sources import check_source, is_saved, read_source, source_name
from stair_jax.data.taking import take
from stair_jax.errors import UserError

_COMPLETE = "complete.json"  # of a finished stage


class Found(NamedTuple):
    """The records of a source.

    Attributes:
      records: in their order.
      left_out: how many rows were not taken, by reason.
      kinds: how many rows of the source are of each kind, as far as they say it.
      about: what the rows were: our own, or the name of their format.
    """

    records: list[Record]
    left_out: Counter[str]
    kinds: Counter[str]
    about: str


def find_sources(place: str, uses: tuple[Use, ...], use: Use | None) -> dict[Use, str]:
    """The source of each use: a file as it is, of a folder the files `sft.jsonl`, `dpo.jsonl`, ...

    Args:
      place: a file, a hub id, the folder of a run or of a stage, or any folder with such files.
      uses: of the format.
      use: the only one that is wanted; None: each that is there.

    Raises:
      UserError: there is nothing, or several files of one name.
    """
    folder = Path(place).expanduser()
    wanted = uses if use is None else (use,)
    if not folder.is_dir() or is_saved(folder):
        check_source(place)
        return {use or _use_of(place, uses): place}
    found = {each: _file(folder, f"{each}.jsonl") for each in wanted}
    there = {each: str(path) for each, path in found.items() if path}
    if not there:
        names = " or ".join(f"{each}.jsonl" for each in wanted)
        raise UserError(f"{folder} has no {names}, nor has a finished stage in it: name a file")
    return there


def _file(folder: Path, name: str) -> Path | None:
    """The file of a name in a folder, or in that of one of its finished stages."""
    if (folder / name).is_file():
        return folder / name
    finished = sorted(path.parent for path in folder.glob(f"*/{_COMPLETE}"))
    found = [stage / name for stage in finished if (stage / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(map(str, found))}: name one of them")
    return found[0] if found else None


def _use_of(source: str, uses: tuple[Use, ...]) -> Use:
    """The one use that a file's columns are for."""
    if len(uses) == 1:
        return uses[0]
    columns = common_columns(read_source(source))
    own = [use for use in _own(columns) if use in uses]
    schemas = [schema for schema in SCHEMAS if schema.fits(columns)]
    fitting = own or [use for use in uses if any(use in schema.uses for schema in schemas)]
    if len(fitting) != 1:
        flags = " or ".join(f"--rows={use}" for use in fitting or uses)
        raise UserError(f"{source} may be exported as more than one: say {flags}")
    return fitting[0]


def _own(columns: Sequence[str]) -> list[Use]:
    """The uses whose records have these columns."""
    return [use for use, record in RECORDS.items() if set(record.required()) <= set(columns)]


def read_records(source: str, use: Use) -> Found:
    """The rows of a source as records: our own, or of a known format.

    Args:
      source: as of `read_source`.
      use: what they are for.

    Raises:
      UserError: a row cannot be read, no row is left, or the columns are unknown.
    """
    found = read_source(source)
    own = _own(common_columns(found))
    if own and use not in own:
        raise UserError(f"{source} has rows of {own[0]}, which cannot be exported as {use}")
    # Any kind will do: no format has a place for it.
    options = ReadingOptions({"*": KINDS[0]}, ("turns",))
    taken = take(found, use, options, source, source_name(source))
    if taken.unreadable:
        place, reason = taken.unreadable[0]
        raise UserError(f"{source}, {place}: {reason}")
    if not taken.rows:
        raise UserError(f"{source}: no row is left of {len(found)}")
    records = [RECORDS[use].from_dict(row, place) for place, row in taken.rows]
    left_out = Counter(reason for _, reason in taken.dropped)
    kinds = Counter(str(row["kind"]) for _, row in found.rows if row.get("kind") in KINDS)
    return Found(records, left_out, kinds, taken.format)
