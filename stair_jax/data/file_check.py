"""Looks at a file of data: its format, what stages take of it, lengths, repeats and overlaps."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_jax.data.decontamination import HeldOutTexts
from stair_jax.data.file_report import FileReport, Overlaps, Repeats, Use
from stair_jax.data.held_out_files import HeldOutFiles, goal_of
from stair_jax.data.near_duplicates import Repeat, find_repeats
from stair_jax.data.public import JAILBREAK_SOURCES
from stair_jax.data.schema import ReadingOptions
from stair_jax.data.sources import check_source, ending, is_pattern, read_source, source_name
from stair_jax.data.tables import ARROW, PARQUET
from stair_jax.data.taking import RECORDS, Purpose, Taken, take
from stair_jax.data.text_files import Place, SourceRows
from stair_jax.data.token_lengths import Lengths, TokenCounter, measure
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint_file, json_line
from stair_jax.text import steps

UNKNOWN = "not known"  # of a kind or a source
_PAIRS: tuple[Purpose, ...] = ("dpo", "prm")
_FORMS = {
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "tab-separated values",
    PARQUET: "Parquet",
    **dict.fromkeys(ARROW, "Arrow"),
}
_PACKED = {".gz": ", gzipped", ".zst": ", zstd", ".zstd": ", zstd"}
_TYPES = {bool: "true or false", str: "text", list: "list", dict: "object"}


class Checker:
    """Makes the reports of files, all with the same tokenizer and the same held-out prompts."""

    def __init__(self, counter: TokenCounter, held_out: HeldOutFiles | None = None) -> None:
        """Takes what counts tokens, and the prompts to compare with; None: none."""
        self._count = counter
        self._files = held_out
        self._held_out = HeldOutTexts(held_out.texts) if held_out else None

    def check(self, source: str) -> FileReport:
        """The report of a file, a folder of datasets, or a data set of the hub.

        Raises:
          UserError: it is not there, cannot be read at all, or is empty.
        """
        check_source(source)
        found = read_source(source)
        if not len(found):
            raise UserError(f"{source} is empty: it has no rows")
        if not found.rows:
            place, reason = found.unreadable[0]
            raise UserError(f"{source}, {place}: {reason}; none of its {len(found)} rows is read")
        path = Path(source).expanduser()
        taken = _taken(found, source)
        facts: dict[str, Any] = self._contents(found, taken) if taken else {}
        return FileReport(
            source=source,
            form=_form(path),
            bytes=path.stat().st_size if path.is_file() else None,
            sha256=fingerprint_file(path) if path.is_file() else "",
            rows=len(found),
            columns=_columns(found.rows),
            uses={name: _use(one) for name, one in taken.items()},
            examples=[found.rows[number].row for number in _spread(len(found.rows))],
            **facts,
        )

    def _contents(self, found: SourceRows, taken: Mapping[Purpose, Taken]) -> dict[str, Any]:
        """What the rows say, of the first use that takes any."""
        first = next((one for one in taken.values() if one.rows), None)
        if first is None:
            return {}
        prompts = [asked(row) for _, row in first.rows]
        answers = [row["answer"] for _, row in taken["sft"].rows] if "sft" in taken else []
        return {
            "kinds": _counted(row.get("kind") for _, row in first.rows),
            "sources": _counted(row.get("source") for _, row in first.rows),
            "structured": sum(map(_is_structured, answers)) if answers else None,
            "tokens": self._count.name,
            "lengths": self._lengths(prompts, answers, taken),
            "repeats": _repeats(found, first.rows, prompts),
            "overlaps": self._overlaps(found, first.rows, prompts),
        }

    def _lengths(
        self, prompts: list[str], answers: list[str], taken: Mapping[Purpose, Taken]
    ) -> dict[str, Lengths]:
        texts = {"prompt": prompts, "answer": answers}
        pairs = next((taken[name].rows for name in _PAIRS if name in taken), [])
        for side in ("chosen", "rejected"):
            texts[side] = [_side(row, side) for _, row in pairs]
        return {name: measure(self._count(found)) for name, found in texts.items() if found}

    def _overlaps(
        self, found: SourceRows, rows: Sequence[Place], prompts: Sequence[str]
    ) -> Overlaps | None:
        if self._held_out is None or self._files is None:
            return None
        goals = {place: goal_of(row) for place, row in found.rows}
        by_file: dict[str, Counter[str]] = {}
        examples = []
        for (place, _), text in zip(rows, prompts, strict=True):
            match = self._held_out.match(text) or self._held_out.match(goals[place])
            if match is None:
                continue
            by_file.setdefault(match.name, Counter())[match.test] += 1
            examples.append(
                {"place": place, "text": text, "file": match.name, "test": match.test}
                | {"value": round(match.value, 3), "like": match.text}
            )
        return Overlaps(
            len(examples),
            {name: dict(counts) for name, counts in sorted(by_file.items())},
            [examples[number] for number in _spread(len(examples))],
            self._files.counts,
            self._files.without,
        )


def asked(row: Mapping[str, Any]) -> str:
    """All that a row asks: its prompt behind the turns before it."""
    turns = [row.get("system"), *(turn["content"] for turn in row.get("history") or ())]
    return "\n\n".join(filter(None, (*turns, row["prompt"])))


def _taken(found: SourceRows, source: str) -> dict[Purpose, Taken]:
    """What each field of `files` takes; those whose columns are others are absent."""
    options = ReadingOptions({}, (), JAILBREAK_SOURCES)
    taken: dict[Purpose, Taken] = {}
    for name in RECORDS:
        try:
            made = take(found, name, options, source, source_name(source), any_kind=True)
        except UserError:
            continue
        if made.rows or made.dropped:
            taken[name] = made
    return taken


def _use(taken: Taken) -> Use:
    first = taken.unreadable[0] if taken.unreadable else None
    return Use(
        taken.format,
        len(taken.rows),
        dict(Counter(reason for _, reason in taken.dropped).most_common()),
        len(taken.unreadable),
        f"{first.place}: {first.reason}" if first else "",
        dict(taken.notes),
    )


def _repeats(found: SourceRows, rows: Sequence[Place], prompts: Sequence[str]) -> Repeats:
    repeats = find_repeats(prompts)
    near = {number: one for number, one in repeats.items() if not one.is_equal}
    shown = list(near)
    return Repeats(
        len(found.rows) - len({json_line(row) for _, row in found.rows}),
        len(repeats) - len(near),
        len(near),
        [_example(rows, prompts, shown[n], near[shown[n]]) for n in _spread(len(near))],
    )


def _example(
    rows: Sequence[Place], prompts: Sequence[str], number: int, repeat: Repeat
) -> dict[str, Any]:
    return {
        "place": rows[number].place,
        "text": prompts[number],
        "first_place": rows[repeat.first].place,
        "first_text": prompts[repeat.first],
        "value": round(repeat.value, 3),
    }


def _spread(count: int) -> list[int]:
    """The indices of the first, of one from the middle and of the last of several."""
    return sorted({0, count // 2, count - 1}) if count else []


def _side(row: Mapping[str, Any], side: str) -> str:
    path = row.get(f"{side}_path")
    return "".join(path) if path is not None else "".join((*row["path"], row[side]))


def _columns(rows: Sequence[Place]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for _, row in rows:
        for name, value in row.items():
            counts.setdefault(name, Counter())[_type(value)] += 1
    return {name: dict(types.most_common()) for name, types in counts.items()}


def _type(value: Any) -> str:
    if value is None:
        return "nothing"
    return next((name for kind, name in _TYPES.items() if isinstance(value, kind)), "number")


def _counted(values: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(str(value or UNKNOWN) for value in values).most_common())


def _is_structured(answer: str) -> bool:
    try:
        steps.parse(answer)
    except steps.FormatError:
        return False
    return True


def _form(path: Path) -> str:
    if path.is_dir():
        return "a folder of datasets"
    if not path.exists():
        return "files of a pattern" if is_pattern(path) else "a data set of the hub"
    return _FORMS.get(ending(path), "JSON lines") + _PACKED.get(path.suffix.lower(), "")
