"""The prompts that a split shares out: of each text one, and none that repeats a held-out one."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stair_jax.data.decontamination import HeldOutTexts, Match, normalised
from stair_jax.data.held_out_files import goal_of
from stair_jax.data.left_out import MAX_BAD_SHARE
from stair_jax.data.near_duplicates import find_repeats
from stair_jax.data.public import JAILBREAK_SOURCES
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.sources import check_source, read_source, source_name
from stair_jax.data.study.texts import ordered, prompt_id
from stair_jax.data.taking import Taken, take
from stair_jax.data.text_files import Place, SourceRows
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint_file
from stair_jax.text import steps

_BESIDE = ("category",)  # columns of any format that are kept


class Candidate(NamedTuple):
    """A prompt that may be taken.

    Attributes:
      row: a row of prompts.
      answer: a good answer of its source; "": there is none.
    """

    row: dict[str, Any]
    answer: str

    @property
    def id(self) -> str:
        """Of the row."""
        return str(self.row["id"])


class Pool:
    """Reads sources, and keeps what may be taken.

    Attributes:
      sources: {source: {sha256, format, rows, read}}.
      counts: {part: {"admitted" or why a row is left out: rows}}.
      left_out: {part, id, prompt, reason, set, test, value, like} of prompts that repeat another.
    """

    def __init__(self, held_out: HeldOutTexts, kinds: Mapping[str, str], seed: int) -> None:
        """A pool without prompts.

        Args:
          held_out: prompts that none may repeat.
          kinds: kind by source, as of the stage `files`.
          seed: of the order.
        """
        self._held_out, self._seed = held_out, seed
        self._kinds = kinds
        self._used: dict[str, str] = {}
        self._ids: set[str] = set()
        self.sources: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.left_out: list[dict[str, Any]] = []

    def read(self, sources: Sequence[str], part: str, kind: str = "") -> list[Candidate]:
        """The prompts of some sources that may be taken, in the order of their hashes.

        Args:
          sources: as of `read_source`.
          part: what they are, for the counts.
          kind: of rows that do not say it; those of another kind are left out. "": any.

        Raises:
          UserError: a source cannot be read, has no prompts, or a kind is not known.
        """
        found = []
        for source in sources:
            found += self._candidates(source, part, kind)
        return ordered(found, lambda one: one.id, self._seed)

    def without_near(self, candidates: list[Candidate], part: str) -> list[Candidate]:
        """Those that do not nearly repeat one before them."""
        repeats = find_repeats([str(one.row["prompt"]) for one in candidates])
        for number, repeat in repeats.items():
            one, like = candidates[number].row, candidates[repeat.first].row
            self._note(part, one, "the split itself", "jaccard", repeat.value, str(like["prompt"]))
            self.counts[part]["admitted"] -= 1
        return [one for number, one in enumerate(candidates) if number not in repeats]

    def _candidates(self, source: str, part: str, kind: str) -> list[Candidate]:
        check_source(source)
        found, name = read_source(source), source_name(source)
        kinds = {**self._kinds, "*": kind} if kind else self._kinds
        options = ReadingOptions(kinds, (), JAILBREAK_SOURCES)
        taken = take(found, "prompts", options, source, name, any_kind=True)
        _check(source, taken, len(found))
        path = Path(source).expanduser()
        self.sources[source] = {
            "sha256": fingerprint_file(path) if path.is_file() else "",
            "format": taken.format,
            "rows": len(found),
            "read": len(taken.rows),
        }
        for _, reason in (*taken.dropped, *(("", "cannot be read") for _ in taken.unreadable)):
            self.counts[part][f"left out: {reason}"] += 1
        raw = dict(found.rows)
        answers = _answers(found, options, source, name)
        return [
            Candidate(row, answers.get(place, ""))
            for place, row in (_whole(one, raw[one.place], name) for one in taken.rows)
            if self._is_kind(part, row, kind) and self._admit(part, name, row)
        ]

    def _is_kind(self, part: str, row: Mapping[str, Any], kind: str) -> bool:
        return not kind or row["kind"] == kind or self._refuse(part, f"not of kind {kind}")

    def _admit(self, part: str, name: str, row: dict[str, Any]) -> bool:
        """Whether a prompt may be taken; if so, it counts as used, and has an id of its own."""
        prompt = str(row["prompt"])
        plain = normalised(prompt)
        if not plain or steps.TAG_PATTERN.search(prompt):
            return self._refuse(part, "empty, or with a tag of the answers")
        if plain in self._used:
            return self._refuse(part, f"the words of one before, in {self._used[plain]}")
        if match := self._match(row, prompt):
            self._note(part, row, *match)
            return False
        self._used[plain] = part
        if row["id"] in self._ids:
            row["id"] = prompt_id(name, prompt)
        self._ids.add(row["id"])
        self.counts[part]["admitted"] += 1
        return True

    def _match(self, row: Mapping[str, Any], prompt: str) -> Match | None:
        return self._held_out.match(prompt) or self._held_out.match(goal_of(row))

    def _note(
        self, part: str, row: Mapping[str, Any], name: str, test: str, value: float, like: str
    ) -> None:
        reason = f"repeats a prompt of {name}"
        self.left_out.append(
            {"part": part, "id": row["id"], "prompt": row["prompt"], "reason": reason}
            | {"set": name, "test": test, "value": round(value, 4), "like": like}
        )
        self._refuse(part, f"{reason} ({test})")

    def _refuse(self, part: str, reason: str) -> bool:
        self.counts[part][f"left out: {reason}"] += 1
        return False


def _answers(found: SourceRows, options: ReadingOptions, source: str, name: str) -> dict[str, str]:
    """The answer of each row that has a good one, by its place."""
    try:
        taken = take(found, "sft", options, source, name, any_kind=True)
    except UserError:
        return {}
    return {place: row["answer"] for place, row in taken.rows}


def _whole(taken: Place, raw: Mapping[str, Any], name: str) -> Place:
    """A row with the goal of its wrapper, the name of its file as its source, and its category."""
    row = dict(taken.row)
    row["source"] = row.get("source") or name
    if goal := goal_of(raw):
        row["goal"] = goal
    row |= {column: raw[column] for column in _BESIDE if isinstance(raw.get(column), str)}
    return Place(taken.place, row)


def _check(source: str, taken: Taken, total: int) -> None:
    """Raises a UserError if too many rows cannot be read, none is left, or a kind is not known."""
    look = f"stair-jax data check {source} says more"
    if len(taken.unreadable) > MAX_BAD_SHARE * total:
        place, reason = taken.unreadable[0]
        raise UserError(
            f"{source}, {place}: {reason}; {len(taken.unreadable)} of {total} rows cannot be read: "
            f"{look}"
        )
    if not taken.rows:
        raise UserError(f"{source}: no row of it is a prompt: {look}")
    unknown = sorted({row.get("source") or "" for _, row in taken.rows if not row["kind"]})
    if unknown:
        named = unknown[0] or source_name(source)
        raise UserError(
            f"{source}: the kind of its rows is not known: add --kinds='{named}=safety', or "
            f"helpfulness, or '*=safety' for all"
        )
