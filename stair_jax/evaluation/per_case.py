"""One number a case out of graded answers: several answers to a case are combined first."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.case import Graded


@dataclass(frozen=True)
class PerCase:
    """The numbers of a metric, one a case, in the order of the cases' ids.

    Attributes:
      rows: one a case that has a number; where one answer of several counts, it is that answer,
        and where their mean does, the first with the means of all their scores.
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

    def only(self, cases: set[str]) -> "PerCase":
        """The rows of these cases; the counts are those of the rows."""
        kept = [index for index, row in enumerate(self.rows) if row.case.id in cases]
        rows = tuple(self.rows[index] for index in kept)
        return PerCase(rows, self.values[kept], len(kept), len(kept), 0, 0)

    @property
    def is_repeated(self) -> bool:
        """Whether there are several answers to a case."""
        return self.answers > self.cases


def per_case(rows: Sequence[Graded], metric: Metric) -> PerCase:
    """The numbers of a metric.

    Of several answers to a case the worst counts, or their mean, as `metric.worst` says; those
    without a score are left out.

    Args:
      rows: of one model, method, benchmark and attack, in any order.
      metric: that chooses group and score.
    """
    chosen = [row for row in rows if is_about(metric, row)]
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


def by_attack(rows: Sequence[Graded], metric: Metric) -> dict[str, PerCase]:
    """The numbers of a metric under each attack, sorted by its name.

    Raises:
      ValueError: the rows are of different models, methods or benchmarks.
    """
    rows = [row for row in rows if is_about(metric, row)]
    if len({(row.answer.model, row.answer.method, row.answer.benchmark) for row in rows}) > 1:
        raise ValueError("the rows of a cell are of one model, method and benchmark")
    attacks = sorted({row.answer.attack for row in rows})
    return {
        attack: per_case([row for row in rows if row.answer.attack == attack], metric)
        for attack in attacks
    }


def joined(parts: Sequence[PerCase]) -> tuple[list[Hashable], list[np.ndarray]]:
    """The cases of all parts, sorted by id.

    Returns:
      the cluster of each case, and for each part the places of its rows' cases [rows].
    """
    clusters: dict[str, Hashable] = {}
    for part in parts:
        clusters |= zip((row.case.id for row in part.rows), part.clusters, strict=True)
    places = {case: place for place, case in enumerate(sorted(clusters))}
    found = [np.array([places[row.case.id] for row in part.rows], int) for part in parts]
    return [clusters[case] for case in places], found


def is_about(metric: Metric, row: Graded) -> bool:
    """Whether an answer counts for a metric: it is of its group, and its scores have the key.

    A score that is there and None is missing; one that is not there is of no concern to the metric.
    """
    return metric.key in row.scores and metric.group in ("", row.case.group)


def score(row: Graded, key: str) -> float | None:
    """A score of an answer; None: it is missing, or no finite number."""
    found = row.scores.get(key)
    return None if found is None or not math.isfinite(found) else float(found)


def _combined(rows: Sequence[Graded], metric: Metric) -> tuple[Graded, float]:
    """The answer that counts and the number of a case; of answers that all have a score."""
    values = [score(row, metric.key) or 0.0 for row in rows]
    if metric.worst is None:
        return replace(rows[0], scores=_mean_scores(rows)), sum(values) / len(values)
    worst = min(values) if metric.worst == "low" else max(values)
    return rows[values.index(worst)], worst


def _mean_scores(rows: Sequence[Graded]) -> dict[str, float | None]:
    """The mean of each score over the answers that have it, as ratios of scores need it."""
    found: dict[str, float | None] = {}
    for name in rows[0].scores:
        values = [value for row in rows if (value := score(row, name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found
