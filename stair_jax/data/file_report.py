"""What is said of a file of data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stair_jax.data.left_out import MAX_BAD_SHARE
from stair_jax.data.taking import Purpose
from stair_jax.data.token_lengths import Lengths


@dataclass(frozen=True)
class Use:
    """What a field of `files` takes of a source.

    Attributes:
      format: as which the rows are read.
      rows: how many are taken.
      left_out: how many rows are left out for what they say, by reason.
      unreadable: how many cannot be read as rows of the format.
      first: the first of these, with its place; "": there is none.
      notes: how often something was passed over within rows that are taken.
    """

    format: str
    rows: int
    left_out: Mapping[str, int]
    unreadable: int
    first: str
    notes: Mapping[str, int]

    @property
    def is_refused(self) -> bool:
        """Whether the stage `files`, as it is set by default, refuses the source."""
        total = self.rows + sum(self.left_out.values()) + self.unreadable
        return not self.rows or self.unreadable > MAX_BAD_SHARE * total


@dataclass(frozen=True)
class Repeats:
    """Prompts that repeat an earlier one of the same file.

    Attributes:
      rows: whole rows that are the same as one before, in all columns.
      equal: prompts with the same words, whatever their case and punctuation.
      near: other prompts with nearly the same content words.
      examples: a few of the near ones, {place, text, first_place, first_text, value}.
    """

    rows: int
    equal: int
    near: int
    examples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Overlaps:
    """Prompts that repeat one of the held-out files.

    Attributes:
      prompts: how many do.
      by_file: {file: {test: count}}, by the held-out prompt that is the most like it.
      examples: a few, {place, text, file, test, value, like}.
      compared: how many prompts each held-out file has.
      without: held-out files that have no prompts, with the reason.
    """

    prompts: int
    by_file: Mapping[str, Mapping[str, int]]
    examples: Sequence[Mapping[str, Any]]
    compared: Mapping[str, int]
    without: Mapping[str, str]


@dataclass(frozen=True)
class FileReport:
    """All that is said of a file.

    Attributes:
      source: its path, or the id of a data set of the hub.
      form: JSON lines, CSV, ...
      bytes: its size; None: it is not a single file.
      sha256: of its bytes; "": it is not a single file.
      rows: how many it has, with those that cannot be read.
      columns: {name: {type: rows}}.
      uses: by field of `files`, what it would take; fields that take nothing are absent.
      kinds: rows by kind.
      sources: rows by the column `source`, the most frequent ones.
      structured: answers that the strict parser of structured answers takes; None: no answers.
      tokens: what counts tokens.
      lengths: of the texts by column.
      repeats: within the file; None: it has no prompts that any stage takes.
      overlaps: with held-out files; None: none are given, or it has no prompts.
      examples: the first row, one from the middle, and the last, as they are.
    """

    source: str
    form: str
    bytes: int | None
    sha256: str
    rows: int
    columns: Mapping[str, Mapping[str, int]]
    uses: Mapping[Purpose, Use] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    structured: int | None = None
    tokens: str = ""
    lengths: Mapping[str, Lengths] = field(default_factory=dict)
    repeats: Repeats | None = None
    overlaps: Overlaps | None = None
    examples: Sequence[Mapping[str, Any]] = ()

    @property
    def objection(self) -> str:
        """Why no stage could read the file; "": one could."""
        if any(not use.is_refused for use in self.uses.values()):
            return ""
        for name, use in self.uses.items():
            if use.first:
                return f"as files.{name}, {use.unreadable} of {self.rows} rows: {use.first}"
            reasons = ", ".join(use.left_out)
            return f"as files.{name}, all rows are left out ({reasons})"
        return f"its columns ({', '.join(self.columns)}) are none that a stage knows"
