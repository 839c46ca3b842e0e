"""Checks of rows that have our columns already: which of them are none, and which to leave out."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from stair_jax.data.records import KINDS, PathPair, PreferencePair, Record, StepPair
from stair_jax.data.schema import KEEPABLE
from stair_jax.data.schemas import Dropped
from stair_jax.data.text_files import Place, SourceRows, Unreadable
from stair_jax.errors import UserError


def check_own(
    found: SourceRows, record: type[Record], keep: Collection[str]
) -> tuple[list[Place], list[Dropped], list[Unreadable], Counter[str]]:
    """Sorts rows of our columns.

    Args:
      found: the rows of a source.
      record: what they are.
      keep: names of `KEEPABLE`.

    Returns:
      (the rows to take, as they are; those to leave out for what they say; those that are no such
      records; how often a value was passed over in the rows that are taken).
    """
    rows: list[Place] = []
    dropped: list[Dropped] = []
    unreadable: list[Unreadable] = []
    notes: Counter[str] = Counter()
    for place, row in found.rows:
        try:
            made = record.from_dict(row, place)
            _check_kind(made, place)
        except UserError as error:
            unreadable.append(Unreadable(place, str(error).removeprefix(place).lstrip(":, ")))
            continue
        if reason := _contradiction(made, keep):
            dropped.append(Dropped(place, reason))
            continue
        for column in record.not_numbers(row):
            notes[f"rows without a number in {column}"] += 1
        rows.append(Place(place, row))
    return rows, dropped, unreadable, notes


def repeated_ids(rows: list[Place], first: dict[Any, str]) -> list[Unreadable]:
    """The rows whose id one before has.

    Args:
      rows: in their order.
      first: places of the rows before these by their ids, to which those of these are added.
    """
    found = []
    for place, row in rows:
        if first.setdefault(row["id"], place) != place:
            reason = f"id {row['id']!r} is already used in {first[row['id']]}: ids must be unique"
            found.append(Unreadable(place, reason))
    return found


def _check_kind(record: Record, place: str) -> None:
    """Raises a UserError for a pair of an unknown kind, which no rates could name."""
    kind = getattr(record, "kind", None)
    if kind is not None and kind not in KINDS:
        raise UserError(f"{place}: kind {kind!r} is unknown: use {' or '.join(KINDS)}")


def _contradiction(record: Record, keep: Collection[str]) -> str:
    """Why a pair is left out; empty: it is not."""
    if not isinstance(record, PreferencePair):
        return ""
    if _alike(record):
        return "both sides alike"
    chosen, rejected = record.chosen_value, record.rejected_value
    if chosen is None or rejected is None or chosen > rejected:
        return ""
    name = "ties" if chosen == rejected else "scores"
    return "" if name in keep else KEEPABLE[name]


def _alike(pair: PreferencePair) -> bool:
    """Whether both sides are the same, by their tokens where both have them."""
    assert isinstance(pair, StepPair | PathPair)
    if pair.chosen_tokens is not None and pair.rejected_tokens is not None:
        return pair.chosen_tokens == pair.rejected_tokens
    if pair.chosen_tokens is not None or pair.rejected_tokens is not None:
        return False
    if isinstance(pair, StepPair):
        return pair.chosen == pair.rejected
    return pair.chosen_path == pair.rejected_path
