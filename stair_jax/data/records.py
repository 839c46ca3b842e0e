"""Rows on disk as typed records: prompts, SFT examples, preference pairs for DPO and for the PRM.

Writers call `to_dict` and readers `from_dict`, so that the columns of a file are declared here
alone. A column that no field is named after is allowed and is not read: it is the user's own.

Each line that is written here has a schema number, `"schema": 1`, which rises when a column is
removed or changes its meaning. It is in the line because lines are cut out, joined, shuffled and
copied out of a workdir by other tools: the number survives all of these, one in the completion
record of the stage would not, and a header would be a row without the columns that such a tool
expects. It costs 13 bytes a line, of hundreds. A line without it is of schema 1: those of earlier
versions and those that users write. The number is no part of what ids and fingerprints are made of.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from stair_jax.data.columns import Texts, Tokens, Turns, as_number, columns_of
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl
from stair_jax.text import starts
from stair_jax.text.steps import final_answer

KINDS = ("safety", "helpfulness")
SCHEMA_COLUMN = "schema"
SAFE_LABEL = "safe"


@dataclass(frozen=True)
class Record:
    """A row. Fields without a value (None) are not written, and are None where a row lacks them.

    Attributes:
      SCHEMA: the schema number of the lines that are written, and the largest that is read.
      id: unique in its file for prompts and SFT examples.
      prompt: what the user asks, as text.
      system: text of a system turn, in place of the model's own; "": as None.
      history: the turns of the chat before the prompt, with the roles "user" and "assistant".
      start: texts of the steps that the answer is made to begin with, see `text/starts.py`; nothing
        is learnt from them.
    """

    SCHEMA: ClassVar[int] = 1

    id: str
    prompt: str
    _: KW_ONLY
    system: str | None = None
    history: Turns | None = None
    start: Texts | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """All turns of the chat, up to the prompt, as {"role", "content"}."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"role": "user", "content": self.prompt}
        return [*system, *map(dict, self.history or ()), asked]

    @property
    def conversation(self) -> str:
        """What a judge reads: the prompt; of a chat all turns, answers without their reasoning."""
        if not self.is_chat:
            return self.prompt
        return "\n\n".join(
            f"{turn['role'].capitalize()}: "
            + (final_answer(turn["content"]) if turn["role"] == "assistant" else turn["content"])
            for turn in self.messages
        )

    @property
    def is_chat(self) -> bool:
        """Whether there is more to it than the prompt: a system turn or earlier turns."""
        return bool(self.system or self.history)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values, with its schema number first."""
        row: dict[str, Any] = {SCHEMA_COLUMN: self.SCHEMA}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                row[field.name] = list(value) if isinstance(value, tuple) else value
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str) -> Self:
        """Reads a row that `to_dict` or a user wrote.

        Args:
          row: JSON values. Text in place of a number is read as one; NaN, infinities, "" and text
            that is no number count as no value.
          where: file and line, for messages.

        Raises:
          UserError: names `where` and the field that is missing, has a wrong type or holds no
            start, or says that the schema number is of a newer version.
        """
        check_schema(row, cls.SCHEMA, where)
        values: dict[str, Any] = {}
        for name, column in columns_of(cls):
            value: Any = row.get(name)
            if value is None and not column.is_required:
                continue
            if not column.fits(value):
                raise UserError(cls._message(row, where, name, column.form))
            if column.is_number:
                value = as_number(value)
            values[name] = tuple(value) if column.is_list else value
        record = cls(**values)
        if objection := record._start_objection():
            raise UserError(f"{where}: the field 'start' {objection}")
        return record

    def _start_objection(self) -> str:
        """What is wrong with `start`; empty: nothing."""
        return starts.objection(self.start) if self.start else ""

    @classmethod
    def not_numbers(cls, row: Mapping[str, Any]) -> list[str]:
        """The columns of a row that should hold a number and hold something that is none."""
        return [
            name
            for name, column in columns_of(cls)
            if column.is_number and row.get(name) is not None and as_number(row[name]) is None
        ]

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """Names of the columns that each row has."""
        return tuple(name for name, column in columns_of(cls) if column.is_required)

    @classmethod
    def _message(cls, row: Mapping[str, Any], where: str, name: str, form: str) -> str:
        return f"{where}: the field {name!r} must be {form}"


@dataclass(frozen=True)
class _KindRow(Record):
    """A row whose kind has to be known."""

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str) -> Self:
        """As `Record.from_dict`; an unknown kind is an error too."""
        record = super().from_dict(row, where)
        if row["kind"] not in KINDS:
            raise UserError(f"{where}: kind {row['kind']!r} is unknown: use {' or '.join(KINDS)}")
        return record

    @classmethod
    def _message(cls, row: Mapping[str, Any], where: str, name: str, form: str) -> str:
        if name not in row:
            return f"{where}, lacks the column {name!r}: it has {', '.join(row)}"
        return f"{where}: the column {name!r} must be {form}"


@dataclass(frozen=True)
class Prompt(_KindRow):
    """A prompt of a search or an evaluation.

    Attributes:
      kind: "safety" or "helpfulness".
      source: the data set, or the family of requests, that it is from.
      reference: the right answer where the data set has one, as it stands there (any JSON value).
      label: of a safety prompt, "safe" where it is harmless and only sounds otherwise, or "unsafe";
        anything else in a column of that name is the user's own.
    """

    kind: str
    source: str = ""
    reference: Any = None
    label: Any = None

    @property
    def is_harmless(self) -> bool:
        """Whether it is known that a refusal would be wrong."""
        return is_harmless(self.kind, self.label)


@dataclass(frozen=True)
class SftRow(_KindRow):
    """An example for supervised fine-tuning (SFT).

    Attributes:
      answer: what the model learns to say, tags and all; behind `start`, if there is one.
      kind: "safety" or "helpfulness".
      source: the data set that it is from; needed where training mixes sources at given rates.
    """

    answer: str
    kind: str
    _: KW_ONLY
    source: str | None = None

    @property
    def whole_answer(self) -> str:
        """The answer behind its start."""
        return "".join((*(self.start or ()), self.answer))


@dataclass(frozen=True)
class SynthesisPrompt(_KindRow):
    """A prompt that is to be answered: a row of prompts, or an SFT example.

    Attributes:
      kind: "safety" or "helpfulness".
      source: the data set, or the family of requests, that it is from.
      reference: the right answer where the data set has one, as it stands there (any JSON value).
      label: as of `Prompt`.
      answer: a good answer, where the row has one; behind `start`, if there is one.
      category: what the prompt is about, by which a policy is chosen.
    """

    kind: str
    _: KW_ONLY
    source: str | None = None
    reference: Any = None
    label: Any = None
    answer: str | None = None
    category: str | None = None

    def to_prompt(self) -> Prompt:
        """The same as a prompt of a search or an evaluation."""
        names = ("system", "history", "start", "reference", "label")
        rest: dict[str, Any] = {name: getattr(self, name) for name in names}
        return Prompt(self.id, self.prompt, self.kind, self.source or "", **rest)

    @property
    def start_text(self) -> str:
        """What each answer is made to begin with; "": nothing."""
        return "".join(self.start or ())


@dataclass(frozen=True)
class PreferencePair(Record):
    """What the pairs for DPO and those for the PRM have in common.

    The fields below are known of pairs from a search tree; pairs of users need none of them.

    Attributes:
      kind: "safety" or "helpfulness"; needed where training mixes the kinds at given rates.
      chosen_value: mean reward of the node of the chosen side; `rejected_value` of the other.
      chosen_visits: its visits in the search; `rejected_visits` of the other.
      depth: steps from the prompt to the chosen node, with its own.
      chosen_terminal: whether the chosen side ends its answer; `rejected_terminal` of the other.
    """

    _: KW_ONLY
    kind: str | None = None
    chosen_value: float | None = None
    rejected_value: float | None = None
    chosen_visits: int | None = None
    rejected_visits: int | None = None
    depth: int | None = None
    chosen_terminal: bool | None = None
    rejected_terminal: bool | None = None

    @property
    def value_gap(self) -> float | None:
        """By how much the value of the chosen side is larger; None: one is not known."""
        if self.chosen_value is None or self.rejected_value is None:
            return None
        return self.chosen_value - self.rejected_value


@dataclass(frozen=True)
class StepPair(PreferencePair):
    """A preference pair for step-level DPO: two next steps after the same path.

    Token ids, where they are given, take the place of the texts: exactly what the model sampled.

    Attributes:
      path: texts of the steps between the prompt and the two, those of `start` first; empty: these
        are whole answers.
      chosen: text of the better step.
      rejected: text of the other.
      path_tokens: ids of all steps of `path`, joined.
      chosen_tokens: ids of `chosen`.
      rejected_tokens: ids of `rejected`.
      chosen_refusals: share of refusals among the answers that the search has found behind
        `chosen`; `rejected_refusals` of the other.
    """

    path: Texts
    chosen: str
    rejected: str
    _: KW_ONLY
    path_tokens: Tokens | None = None
    chosen_tokens: Tokens | None = None
    rejected_tokens: Tokens | None = None
    chosen_refusals: float | None = None
    rejected_refusals: float | None = None

    @property
    def better_texts(self) -> Texts:
        """The steps of the better side from the prompt on."""
        return (*self.path, self.chosen)

    def _start_objection(self) -> str:
        return super()._start_objection() or _not_ahead(self.start, self.path)


@dataclass(frozen=True)
class PathPair(PreferencePair):
    """A preference pair for the process reward model (PRM): two paths from the prompt on.

    Attributes:
      chosen_path: texts of the steps of the better path; `rejected_path` of the other. Both begin
        with those of `start`.
      form: "step" for two nodes of one depth, "trajectory" for two whole answers.
      chosen_tokens: ids of all its steps, joined, which take the place of the texts;
        `rejected_tokens` of the other.
    """

    chosen_path: Texts
    rejected_path: Texts
    _: KW_ONLY
    form: str | None = None
    chosen_tokens: Tokens | None = None
    rejected_tokens: Tokens | None = None

    @property
    def better_texts(self) -> Texts:
        """The steps of the better side from the prompt on."""
        return self.chosen_path

    def _start_objection(self) -> str:
        return super()._start_objection() or _not_ahead(
            self.start, self.chosen_path, self.rejected_path
        )


R = TypeVar("R", bound=Record)


def read_dicts(rows: Iterable[Mapping[str, Any]], record: type[R], path: str | Path) -> list[R]:
    """The rows of a file as records, by their order.

    Raises:
      UserError: as `Record.from_dict`, with `path` and the number of the line.
    """
    return [
        record.from_dict(row, f"{path}, line {number}") for number, row in enumerate(rows, start=1)
    ]


def write_rows(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines, atomically."""
    write_jsonl(path, (record.to_dict() for record in records))


def check_schema(row: Mapping[str, Any], known: int, where: str) -> None:
    """Checks that a row is of no newer schema than `known`; one without a number is of schema 1.

    Text of digits is a number too: that is what a CSV file makes of it. Anything else in the column
    of that name is the user's own, like any column that is not known.

    Raises:
      UserError: it is newer.
    """
    try:
        number = int(row.get(SCHEMA_COLUMN) or 1)
    except (TypeError, ValueError, OverflowError):
        return
    if number > known:
        raise UserError(
            f"{where}: its schema {number} is newer than {known}, the newest that is read here: "
            f"update stair_jax (or rename the column {SCHEMA_COLUMN!r}, if it is your own)"
        )


def is_harmless(kind: str, label: Any = None) -> bool:
    """Whether a refusal of a prompt of this kind and label would be wrong."""
    return kind == "helpfulness" or label == SAFE_LABEL


def _not_ahead(start: Texts | None, *paths: Texts) -> str:
    """Says that a path does not begin with the steps of the start; empty: all do."""
    ahead = start or ()
    if all(path[: len(ahead)] == ahead for path in paths):
        return ""
    return "is not what the path begins with"
