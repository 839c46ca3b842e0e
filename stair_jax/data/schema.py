"""What a format of rows is: its columns, and for each use a function that reads a row.

The formats themselves are in `public.py` (data sets by name), `released.py` (what belongs to the
paper) and `common_formats.py` (how anybody's data look); `schemas.py` chooses among them.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_jax.data.numbers import read_number
from stair_jax.data.records import KINDS, Prompt, Record, SftRow, StepPair
from stair_jax.errors import UserError

Row = Mapping[str, Any]
Use = Literal["prompts", "sft", "dpo"]

# Rows that are left out unless `files.keep` names them.
KEEPABLE = {
    "ties": "both answers have the same score",
    "scores": "its scores contradict each other",
    "labels": "the answer that it calls safer is labelled unsafe, and the other safe",
    "unsafe": "no answer is safe, and one is chosen",
    "system": "it has a system turn",
    "turns": "it has more than one turn",
}

# Names of the scores of a pair, in the row or in its column `metadata`.
_SCORES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_value", "rejected_value"),
)

# Substrings of the names of sources, reduced to lower-case letters.
_NAMES = {
    "saferlhf": "safety",
    "jailbreak": "safety",
    "ultrafeedback": "helpfulness",
    "safety": "safety",
    "helpfulness": "helpfulness",
}


class LeftOut(Exception):
    """Raised by a reader for a row that is dropped; the message is the reason."""


@dataclass(frozen=True)
class ReadingOptions:
    """What the user says of how public formats are read.

    Attributes:
      kinds: kind by source; "*" is any other source.
      keep: names of `KEEPABLE`.
      jailbreak_sources: of JailbreakV-28k, the sources that are taken; empty: all.
    """

    kinds: Mapping[str, str]
    keep: Collection[str] = ()
    jailbreak_sources: Collection[str] = ()


class Kinds:
    """Maps the name of a source to a kind, "safety" or "helpfulness"."""

    def __init__(self, given: Mapping[str, str], unknown: set[str]):
        """A mapping with user-given kinds.

        Args:
          given: source -> kind; "*" is any other source.
          unknown: receives the sources whose kind cannot be told, so that all are reported at once.

        Raises:
          UserError: an unknown kind is given.
        """
        for source, kind in given.items():
            if kind not in KINDS:
                raise UserError(
                    f"files.kinds gives {source!r} the unknown kind {kind!r}: "
                    f"use {' or '.join(KINDS)}"
                )
        self.given, self._unknown = given, unknown

    def __call__(self, source: str) -> str:
        """The kind of a source, which has to be known; "" where it is not."""
        kind = self.known(source)
        if kind is None:
            self._unknown.add(source)
        return kind or ""

    def known(self, source: str) -> str | None:
        """The kind: as given for the source, else by its name, else that of "*", else None."""
        if source in self.given:
            return self.given[source]
        letters = re.sub("[^a-z]", "", source.lower())
        by_name = (kind for name, kind in _NAMES.items() if name in letters)
        return next(by_name, self.given.get("*"))


class Reading:
    """What the readers of one source's rows share.

    Attributes:
      options: see `ReadingOptions`.
      unknown: sources whose kind cannot be told, so that all are reported at once.
      notes: how often something was passed over within rows that are kept.
    """

    def __init__(self, options: ReadingOptions, name: str = ""):
        """For the rows of a source.

        Args:
          options: of the user.
          name: of the source; stands for the source of rows that name none, in `options.kinds`.

        Raises:
          UserError: an unknown kind is given.
        """
        self.options, self._name = options, name
        self.unknown: set[str] = set()
        self._kinds = Kinds(options.kinds, self.unknown)
        self.notes: Counter[str] = Counter()

    def keeps(self, name: str) -> bool:
        """Whether rows of this name of `KEEPABLE` are kept."""
        return name in self.options.keep

    def leave_out(self, name: str) -> None:
        """Leaves the row out, unless rows of this name of `KEEPABLE` are kept."""
        if not self.keeps(name):
            raise LeftOut(KEEPABLE[name])

    def kind(self, row: Row) -> str:
        """The kind of a row, which has to be known."""
        return self.known_kind(row) or self._kinds(source_of(row))

    def known_kind(self, row: Row) -> str | None:
        """The kind of a row, where it can be told.

        As the row says in its column `kind`, else that of its source. The name of the file stands
        for the source of rows that have none, where `kinds` has it.
        """
        if row.get("kind") in KINDS:
            return str(row["kind"])
        source = source_of(row)
        if not source and self._name in self._kinds.given:
            source = self._name
        return self._kinds.known(source)

    def check_scores(self, row: Row) -> None:
        """Leaves a pair out whose chosen side has no higher score than the rejected one."""
        nested = row.get("metadata")
        for place in (row, nested) if isinstance(nested, Mapping) else (row,):
            for names in _SCORES:
                if not place.keys() >= set(names):
                    continue
                chosen, rejected = (read_number(place[name]) for name in names)
                if chosen is None or rejected is None:
                    self.notes[f"pairs without a number in {' or '.join(names)}"] += 1
                elif chosen <= rejected:
                    self.leave_out("ties" if chosen == rejected else "scores")


Reader = Callable[[Row, Reading], Record]  # without an id


@dataclass(frozen=True)
class Schema:
    """A format that is recognised by its columns.

    Attributes:
      name: for messages and ids.
      columns: required columns, by which it is recognised.
      uses: for each use, the function that converts a row; it may raise `LeftOut`.
      id_column: column with the ids of its rows; "": none.
      others: the only further columns that are allowed; None: any.
      tier: where several formats fit, those of the lowest tier come first: 0 for data sets.
    """

    name: str
    columns: frozenset[str]
    uses: Mapping[Use, Reader]
    id_column: str = ""
    others: frozenset[str] | None = None
    tier: int = 0

    def fits(self, columns: Collection[str]) -> bool:
        """Whether the required columns are among these, and no others than those allowed."""
        extra = set(columns) - self.columns
        return self.columns <= set(columns) and (self.others is None or extra <= self.others)


def source_of(row: Row) -> str:
    """The column `source` of a row; "" where it has none."""
    return str(row.get("source") or "")


def make_prompt(
    prompt: Any, kind: str, source: str, reference: str | None = None, **before: Any
) -> Prompt:
    """A prompt without an id; `before` are the turns before it, see `Record`."""
    return Prompt("", prompt, kind, source, reference, **before)


def make_example(prompt: Any, answer: Any, kind: str, **before: Any) -> SftRow:
    """An SFT example without an id; `before` are the turns before it, see `Record`."""
    return SftRow("", prompt, answer, kind, **before)


def make_pair(prompt: Any, chosen: Any, rejected: Any, kind: str | None, **more: Any) -> StepPair:
    """A pair of whole answers without an id; `more` are further fields of a `StepPair`."""
    if chosen == rejected:
        raise LeftOut("both answers alike")
    return StepPair("", prompt, more.pop("path", ()), chosen, rejected, kind=kind, **more)
