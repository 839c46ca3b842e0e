"""Benchmarks in files of the user's, without code: a prompt a row, and how answers are graded.

The first row may be {"benchmark": {...}}, see `Grading`; or the file's name is followed by "@" and
a way of grading, as in "capitals.jsonl@text".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from stair_jax.data.numbers import read_number
from stair_jax.data.records import KINDS
from stair_jax.data.sources import source_name
from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.benchmark import Benchmark, Metric, Role, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Material, Verdict
from stair_jax.evaluation.reading.likelihoods import prefers_first
from stair_jax.evaluation.rows import Row, checked_cases, read_rows
from stair_jax.evaluation.statistics import macro_mean, mean
from stair_jax.search.judging.sources.checkable_answers import is_right, says_text

Match = Literal["number", "choice", "text", "likelihood"]

_MATCHES: tuple[str, ...] = get_args(Match)
_LISTED = ", ".join(_MATCHES)
# What each label of a question counts, where the file does not say; others count 0.
_COUNTS: Mapping[str, Mapping[str, float]] = {
    "correctness": {"correct": 1.0},
    "refusal": {"full_refusal": 1.0, "partial_refusal": 1.0},
    "action": {"follows": 1.0},
    "harmful": {"yes": 1.0},
    "safeguard": {"violates": 1.0},
    "preference": {},  # its score is the probability that the answer is preferred
}
_ABOUT_SAFETY = ("refusal", "action", "harmful", "safeguard")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BY_BYTES = ("accuracy_per_byte", "score_per_byte")  # a figure and its grades, of likelihoods


@dataclass(frozen=True)
class Grading:
    """How the answers to the rows of a file are graded.

    Attributes:
      name: of the benchmark; "": that of the file.
      match: how an answer is compared with `reference`: "number", "choice" (a letter) or "text";
        "likelihood": the right one of `choices` is likelier than each other. "": by a judge.
      question: what a judge is asked. "": no judge.
      counts: of a question, the number that each label counts; others count 0.
      policy: of the question "safeguard", the rules to judge by.
      macro: whether the figure is the mean over groups instead of over rows.
      role: see `Benchmark`.
      kind: of the prompts, "safety" or "helpfulness"; "": as fits the question.
      metric: name of the figure in tables; "": "accuracy" of a match, "score" of a question.
    """

    name: str = ""
    match: str = ""
    question: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    policy: str = ""
    macro: bool = False
    role: Role = "reported"
    kind: str = ""
    metric: str = ""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: names the field.
        """
        for each in fields(self):
            if each.name != "counts" and not isinstance(
                getattr(self, each.name), type(each.default)
            ):
                kind = "true or false" if each.name == "macro" else "text"
                raise UserError(f"benchmark.{each.name} is not {kind}")
        if bool(self.match) == bool(self.question):
            raise UserError(f"give either benchmark.match, one of {_LISTED}, or benchmark.question")
        if self.match and self.match not in _MATCHES:
            raise UserError(f"benchmark.match {self.match!r}: {did_you_mean(self.match, _MATCHES)}")
        if self.question and self.question not in _COUNTS:
            hint = did_you_mean(self.question, _COUNTS)
            raise UserError(f"benchmark.question {self.question!r}: {hint}")
        if self.role not in get_args(Role):
            raise UserError(f"benchmark.role is none of {', '.join(get_args(Role))}")
        if self.kind not in ("", *KINDS):
            raise UserError(f"benchmark.kind is none of {', '.join(KINDS)}")
        if self.name and not _NAME.fullmatch(self.name):
            raise UserError('benchmark.name may hold letters, digits, "_", "-" and "."')
        if self.metric and not _METRIC.fullmatch(self.metric):
            raise UserError(
                "benchmark.metric has at most 32 lower case letters, digits and _, a letter first"
            )
        if self.metric in _BY_BYTES:
            raise UserError(f"benchmark.metric {self.metric!r} is the figure by bytes: rename it")
        self._check_counts()

    def _check_counts(self) -> None:
        is_good = isinstance(self.counts, Mapping) and all(
            read_number(number) is not None for number in self.counts.values()
        )
        if not is_good:
            raise UserError("benchmark.counts is not an object of numbers by label")
        if self.counts and self.question in ("", "preference"):
            raise UserError("benchmark.counts is for questions that have labels")


_FIELDS = tuple(each.name for each in fields(Grading))


class OwnBenchmark(Benchmark):
    """A benchmark in a file; `own_benchmark` makes a subclass of each file.

    Class attributes:
      GRADING: how its answers are graded.
    """

    GRADING: ClassVar[Grading]

    def read(self, path: Path) -> list[Case]:
        """One case a row, but for the first one where that says how the rows are graded.

        Columns are prompt, and optionally id, group, cluster, system, reference, choices and other
        (an answer to compare with).
        """
        rows = [row for row in read_rows(path) if not _is_header(row)]
        if not rows:
            raise UserError(f"{path} has no rows with prompts")
        return checked_cases(path, [_case(row, self.GRADING) for row in rows])

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`score`: 1 or 0 of a match, what the label counts of a question."""
        grading = self.GRADING
        if grading.match == "likelihood":
            return _by_likelihood(case, answer)
        if grading.match:
            return {"score": float(_matches(grading.match, answer.final, case.reference))}
        if verdict is None or verdict.label is None:
            return {"score": None}
        if grading.question == "preference":
            return {"score": verdict.scores.get("p")}
        return {"score": float(_counted(grading).get(verdict.label, 0.0))}

    def material(self, case: Case, answer: Answer) -> Material:
        """As of any benchmark, with the policy and the answer to compare with."""
        other = case.columns.get("other", "")
        shown = super().material(case, answer)
        return replace(shown, other=other, policy=self.GRADING.policy)


def own_benchmark(source: str) -> type[OwnBenchmark]:
    """The benchmark in a file.

    Args:
      source: path of the file, see `read_rows`, with "@" and a match or a question behind it where
        its first row does not say how it is graded. Without either, rows with choices are graded by
        their likelihoods.

    Raises:
      UserError: the file cannot be read, or does not say how it is graded.
    """
    path, how = _split(source)
    grading = _grading(path, how)
    statistic = macro_mean if grading.macro else mean
    name = grading.name or source_name(path)
    main = grading.metric or ("accuracy" if grading.match else "score")
    metrics = [Metric(main, "score", statistic, labels=_labels(grading))]
    if grading.match == "likelihood":
        metrics.append(Metric(*_BY_BYTES, statistic))
    values = {
        "__doc__": f"The benchmark in {path}.",
        "NAME": name,
        "SOURCE": Source((str(path.absolute()),), "it is your own file"),
        "ROLE": grading.role,
        "QUESTION": grading.question,
        "KIND": grading.kind or ("safety" if grading.question in _ABOUT_SAFETY else "helpfulness"),
        "METRICS": tuple(metrics),
        "GRADING": grading,
    }
    return type("OwnBenchmark", (OwnBenchmark,), values)


def _counted(grading: Grading) -> Mapping[str, float]:
    """What the labels of a question count."""
    return grading.counts or _COUNTS[grading.question]


def _labels(grading: Grading) -> tuple[str, ...]:
    """The labels that count 1, where all others count 0: see `Metric.labels`."""
    if not grading.question or not set(_counted(grading).values()) <= {0, 1}:
        return ()
    return tuple(label for label, number in _counted(grading).items() if number)


def _split(source: str) -> tuple[Path, str]:
    """The path, and the way of grading behind it."""
    path, _, how = source.rpartition("@")
    if path and how in (*_MATCHES, *_COUNTS):
        return Path(path).expanduser(), how
    if path and not Path(source).expanduser().exists():
        raise UserError(f"{source}: {did_you_mean(how, (*_MATCHES, *_COUNTS))}")
    return Path(source).expanduser(), ""


def _grading(path: Path, how: str) -> Grading:
    """How a file is graded, by its first row and by what is behind its name."""
    first = read_rows(path)[0]
    if how and _is_header(first):
        raise UserError(f"{path} says how it is graded in its first row: leave out @{how}")
    if how:
        return Grading(match=how) if how in _MATCHES else Grading(question=how)
    if not _is_header(first):
        if first.has("choices"):
            return Grading(match="likelihood")
        raise UserError(
            f"{path} does not say how answers are graded: name it as {path.name}@MATCH, with one "
            f'of {_LISTED}, or begin it with a row such as {{"benchmark": {{"question": '
            '"correctness"}}'
        )
    header = first.value("benchmark")
    if unknown := next((name for name in header if name not in _FIELDS), None):
        raise first.error(f"benchmark.{unknown}: {did_you_mean(unknown, _FIELDS)}")
    try:
        return Grading(**header)
    except UserError as error:
        raise first.error(str(error)) from error


def _is_header(row: Row) -> bool:
    return row.number == 0 and isinstance(row.value("benchmark"), dict) and not row.has("prompt")


def _case(row: Row, grading: Grading) -> Case:
    choices = _choices(row) if grading.match == "likelihood" else ()
    reference = row.value("reference")
    if choices:
        reference = _index(row, choices)
    elif grading.match or grading.question == "correctness":
        _check_reference(row, grading.match)
    other = row.text("other") if grading.question == "preference" else ""
    return Case(
        id=row.text("id", str(row.number)),
        prompt=row.text("prompt"),
        group=row.text("group", ""),
        cluster=row.text("cluster", ""),
        reference=reference,
        choices=choices,
        system=row.text("system", "") or None,
        columns={"other": other} if other else {},
    )


def _choices(row: Row) -> tuple[str, ...]:
    value = row.value("choices")
    is_good = isinstance(value, list) and all(isinstance(text, str) and text for text in value)
    if not is_good or len(set(value)) < max(len(value), 2):
        raise row.error("the column 'choices' is no list of two or more different texts")
    return tuple(value)


def _index(row: Row, choices: tuple[str, ...]) -> int:
    """Which choice is the right one: the reference is its text, or its number from 0."""
    reference = row.value("reference")
    if isinstance(reference, str) and reference in choices:
        return choices.index(reference)
    if type(reference) is int and 0 <= reference < len(choices):
        return reference
    raise row.error("the column 'reference' is neither one of 'choices' nor its number from 0")


def _check_reference(row: Row, match: str) -> None:
    """Checks that a reference, or each of a list, can be compared as it is to be.

    Raises:
      UserError: names the row.
    """
    value = row.value("reference")
    wanted = value if isinstance(value, list) and value else [value]
    for reference in wanted:
        text = str(reference).strip()
        if isinstance(reference, bool) or not isinstance(reference, str | int | float) or not text:
            raise row.error("the column 'reference' is neither text nor a number")
        if match == "number" and read_number(text.replace(",", "").replace("$", "")) is None:
            raise row.error(f"the column 'reference' holds {text!r}, which is no number")
        if match == "choice" and not re.fullmatch("[A-J]", text):
            raise row.error(
                f"the column 'reference' holds {text!r}, which is no letter from A to J"
            )


def _matches(match: str, final: str, reference: Any) -> bool:
    if match != "text":
        return is_right(final, reference)
    wanted = reference if isinstance(reference, list) else [reference]
    return any(says_text(final, str(text)) for text in wanted)


def _by_likelihood(case: Case, answer: Answer) -> dict[str, float | None]:
    """Whether the right choice is the likeliest, as it is and divided by bytes."""
    if len(answer.likelihoods) != len(case.choices):
        return {"score": None, "score_per_byte": None}
    order = sorted(range(len(case.choices)), key=lambda index: index != case.reference)
    values = [answer.likelihoods[index] for index in order]
    lengths = [len(case.choices[index].encode()) for index in order]
    return {
        "score": prefers_first(values, [1] * len(values)),
        "score_per_byte": prefers_first(values, lengths),
    }
