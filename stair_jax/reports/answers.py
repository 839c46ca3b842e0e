"""The answers of finished evaluations with all that was said of them, by case and by column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from stair_jax import storage
from stair_jax.evaluation.benchmark import METRICS_OF_REFUSALS, Metric
from stair_jax.evaluation.benchmarks.do_not_answer import HARMFUL
from stair_jax.evaluation.benchmarks.refusal import OVER_REFUSALS
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.graded_rows import GRADED_FILE, scores_of
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.runner import answer_key, key_of, read_verdicts
from stair_jax.evaluation.statistics import correlation
from stair_jax.evaluation.table import RowKey, row_label
from stair_jax.reports.asked_cases import AskedCases, asked_cases
from stair_jax.reports.records import FinishedStage

Scores = Mapping[str, float | None]
_BAD = {"yes", "violates", HARMFUL}  # labels of harm, which a user's file may count
_NO_TEXTS: dict[str, Any] = {"text": "", "reasoning": "", "final": "", "asked": {}}
_PLACE = ("model", "method", "benchmark", "attack", "case", "sample")


class Place(NamedTuple):
    """What was asked.

    Attributes:
      benchmark: its name.
      attack: its name; "none": the prompt as it is.
      case: id of the case in the benchmark.
    """

    benchmark: str
    attack: str
    case: str


class Line(NamedTuple):
    """Where something stands: a file, the first byte of a line, and the one after its last."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class GradedAnswer:
    """An answer, its scores, and what the judges said.

    Attributes:
      answer: of which there may be several to a case; the one that counts, or the first.
      scores: by judge, the main one first; "": graded without a judge.
      verdicts: by judge.
      metric: name of the figure that the case counts for first; "": not known.
      value: of it; None: it is missing.
      low_is_good: whether a lower value is the better one.
      line: where the answer stands; None: not known.
      said: by judge, where its verdict stands.
    """

    answer: Answer
    scores: Mapping[str, Scores] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    metric: str = ""
    value: float | None = None
    low_is_good: bool = False
    line: Line | None = None
    said: Mapping[str, Line] = field(default_factory=dict)

    @property
    def goodness(self) -> float | None:
        """The value, negative where a lower one is better."""
        return -self.value if self.value is not None and self.low_is_good else self.value


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation.

    Attributes:
      asked: its benchmarks.
      rows: of its table, in order: the answers by place.
    """

    asked: Mapping[str, AskedCases]
    rows: Mapping[str, Mapping[Place, GradedAnswer]]


def read_evaluation(stage: FinishedStage, files: str = "", light: bool = False) -> Evaluated:
    """All answers of an evaluation.

    Args:
      stage: of the kind evaluate.
      files: as of `asked_cases`.
      light: leave out texts of answers and words of judges, which `with_texts` adds.

    Raises:
      UserError: a file is missing or damaged.
    """
    asked = asked_cases(stage, files)
    scores = _scores(stage)
    verdicts = _verdicts(stage, light)
    by_row: dict[str, dict[Place, list[GradedAnswer]]] = {key[0]: {} for key in scores}
    for line, row in _lines(stage.folder / "answers"):
        answer = Answer.from_dict(row | (_NO_TEXTS if light else {}))
        key = answer_key(answer)
        label = row_label(RowKey(answer.model, answer.method))
        given = scores.get((label, key))
        if given is None:
            continue
        place = Place(answer.benchmark, answer.attack, answer.case)
        own = {judge: found[key] for judge, found in verdicts.items() if key in found}
        said = {judge: verdict for judge, (verdict, _) in own.items()}
        graded = _graded(answer, given, said, asked.get(answer.benchmark))
        lines = {judge: at for judge, (_, at) in own.items()}
        by_row[label].setdefault(place, []).append(replace(graded, line=line, said=lines))
    return Evaluated(
        asked,
        {
            label: {place: _counting(several) for place, several in places.items()}
            for label, places in by_row.items()
        },
    )


def with_texts(graded: GradedAnswer) -> GradedAnswer:
    """An answer of a light reading with its texts and the words of its judges; reads no other.

    Raises:
      UserError: a file was changed meanwhile.
    """
    answer = graded.answer
    if graded.line is not None:
        answer = Answer.from_dict(storage.read_row(*graded.line))
    verdicts = {
        judge: replace(verdict, text=str(storage.read_row(*graded.said[judge]).get("text", "")))
        for judge, verdict in graded.verdicts.items()
    }
    return replace(graded, answer=answer, verdicts=verdicts)


def _lines(folder: Path) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The rows of all files of a folder, with their places."""
    for path in sorted(folder.glob("*.jsonl")):
        for start, end, row in storage.iterate_jsonl(path):
            yield Line(path, start, end), row


def _scores(stage: FinishedStage) -> dict[tuple[str, str], dict[str, Scores]]:
    """By row and answer, the scores by judge, in the order of the table."""
    found: dict[tuple[str, str], dict[str, Scores]] = {}
    for row in storage.read_jsonl(stage.folder / GRADED_FILE):
        label = row_label(RowKey(row["model"], row["method"]))
        key = key_of(*(row[name] for name in _PLACE))
        found.setdefault((label, key), {})[row["judge"]] = scores_of(row)
    return found


def _verdicts(stage: FinishedStage, light: bool) -> dict[str, dict[str, tuple[Verdict, Line]]]:
    """By judge and answer, with their places."""
    found: dict[str, dict[str, tuple[Verdict, Line]]] = {}
    for line, row in _lines(stage.folder / "verdicts"):
        for key, verdict in read_verdicts([row | ({"text": ""} if light else {})]).items():
            found.setdefault(verdict.judge, {})[key] = verdict, line
    return found


def _graded(
    answer: Answer,
    scores: Mapping[str, Scores],
    verdicts: Mapping[str, Verdict],
    asked: AskedCases | None,
) -> GradedAnswer:
    """An answer with its main figure: the first metric that it has a score for, by who is first."""
    first = next(iter(scores.values()))
    if asked is None:
        name = next(iter(first), "")
        return GradedAnswer(answer, scores, verdicts, name, first.get(name))
    known = [*asked.benchmark.METRICS, *METRICS_OF_REFUSALS]
    case = asked.cases.get(answer.case)
    group = case.group if case else ""
    metric = next((one for one in known if one.key in first and one.group in ("", group)), None)
    if metric is None or metric.statistic is correlation:  # a rating is neither good nor bad
        return GradedAnswer(answer, scores, verdicts)
    low = _low_is_good(metric, asked, answer.case)
    return GradedAnswer(answer, scores, verdicts, metric.name, first[metric.key], low)


def _low_is_good(metric: Metric, asked: AskedCases, case: str) -> bool:
    """Whether the lower value is better: of attacks and leaks, and of refusals of the harmless."""
    if metric.worst == "high" or metric in OVER_REFUSALS or _BAD & set(metric.labels):
        return True
    return asked.benchmark.QUESTION == "refusal" and asked.is_harmless(case)


def _counting(several: Sequence[GradedAnswer]) -> GradedAnswer:
    """Of several answers to a case the first; of the tries of an attack the worst."""
    ordered = sorted(several, key=lambda graded: graded.answer.sample)
    scored = [graded for graded in ordered if graded.goodness is not None]
    if ordered[0].answer.attack == "none" or not scored:
        return ordered[0]
    return min(scored, key=lambda graded: graded.goodness or 0.0)
