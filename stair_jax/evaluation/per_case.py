"""One number a case out of graded answers: several answers to a case are combined first."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.case import Graded


@dataclass(frozen=True)
class PerCase:
    """The numbers of a metric, one a case, in the order of the cases' ids.

    Attributes:
      rows: one a case that has a number; where one answer of several counts, it is that answer.
      values: their numbers [rows].
      cases: number of cases, those without a number included.
      answers: number of answers to them.
      missing: number of answers without a score.
      cut: number of answers that ended at the limit of tokens.
    """

    rows: tuple[Graded, ...]
    values: np.ndarray
    cases: int
    answers: int
    missing: int
    cut: int

    @property
    def clusters(self) -> list[Hashable]:
        """What is resampled together, one label a row."""
        # a cluster may have the name of a case that stands alone
        return [
            ("cluster", row.case.cluster) if row.case.cluster else ("case", row.case.id)
            for row in self.rows
        ]

    @property
    def is_repeated(self) -> bool:
        """Whether there are several answers to a case."""
        return self.answers > self.cases


def per_case(rows: Sequence[Graded], metric: Metric) -> PerCase:
    """The numbers of a metric.

    Answers whose scores lack the metric's key are of cases that it is not about; where it is there
    and None, it is missing. Of several answers to a case the worst counts, or their mean, as `metric.worst` says; those
    without a score are left out.

    Args:
      rows: of one model, method, benchmark and attack, in any order.
      metric: that chooses group and score.

    Raises:
      ValueError: the rows are of different models, methods, benchmarks or attacks.
    """
    chosen = [
        row
        for row in rows
        if metric.key in row.scores and (not metric.group or row.case.group == metric.group)
    ]
    if len({_origin(row) for row in chosen}) > 1:
        raise ValueError("the rows of a cell are of one model, method, benchmark and attack")
    chosen.sort(key=lambda row: (row.case.id, row.answer.sample))
    by_case: dict[str, list[Graded]] = {}
    for row in chosen:
        by_case.setdefault(row.case.id, []).append(row)
    scored = {
        case: [row for row in several if score(row, metric.key) is not None]
        for case, several in by_case.items()
    }
    combined = [_combined(several, metric) for several in scored.values() if several]
    return PerCase(
        rows=tuple(row for row, _ in combined),
        values=np.array([value for _, value in combined], np.float64),
        cases=len(by_case),
        answers=len(chosen),
        missing=len(chosen) - sum(map(len, scored.values())),
        cut=sum(row.answer.is_cut for row in chosen),
    )


def score(row: Graded, key: str) -> float | None:
    """A score of an answer; None: it is missing, or no finite number."""
    found = row.scores.get(key)
    return None if found is None or not math.isfinite(found) else float(found)


def _origin(row: Graded) -> tuple[str, str, str, str]:
    answer = row.answer
    return answer.model, answer.method, answer.benchmark, answer.attack


def _combined(rows: Sequence[Graded], metric: Metric) -> tuple[Graded, float]:
    """The answer that counts and the number of a case; of answers that all have a score."""
    values = [score(row, metric.key) or 0.0 for row in rows]
    if metric.worst is None:
        return rows[0], sum(values) / len(values)
    worst = min(values) if metric.worst == "low" else max(values)
    return rows[values.index(worst)], worst
