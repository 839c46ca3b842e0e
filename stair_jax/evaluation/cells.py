"""Cells of a table: a figure with its interval, and what it rests on."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.bootstrap import Estimate, extreme_samples, percentiles, resample
from stair_jax.evaluation.calibration import MISFIT, Correction, is_clipped
from stair_jax.evaluation.case import Graded
from stair_jax.evaluation.per_case import PerCase, by_attack, is_about, joined, score

NUM_SAMPLES = 2000
TOPS = {"share": 1.0, "percent": 100.0}  # what a figure of a unit is at most; at least it is 0
UNDEFINED = "undefined for these numbers"
ONE_CLUSTER = "no interval: all cases are of one cluster"


@dataclass(frozen=True)
class Cell:
    """A figure of a table with its 95 % confidence interval.

    Attributes:
      value: the figure; None: there is none, and `note` says why.
      low: lower end of the interval; None: there is none.
      high: upper end.
      n: number of cases that it is made of.
      cases: number of cases that were asked; `cases - n` have no number.
      answers: number of answers, several a case where an attack tries several times.
      missing: number of answers without a score.
      cut: number of answers that ended at the limit of tokens.
      judge: name of the judge; "": the answers are graded without one.
      corrected: whether the judge's own error is taken out of the figure.
      metric: name of the metric.
      unit: of the figure, see `Metric.unit`.
      note: why there is no figure or no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    cases: int = 0
    answers: int = 0
    missing: int = 0
    cut: int = 0
    judge: str = ""
    corrected: bool = False
    metric: str = ""
    unit: str = "share"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Cell":
        """Of what `to_dict` gives; keys of later versions are not read."""
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})


def cell(
    rows: Sequence[Graded],
    metric: Metric,
    judge: str = "",
    correction: Correction | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Cell:
    """A metric of graded answers with its interval by the cluster bootstrap.

    Of rows under several attacks it is the mean of the attacks' figures. A bootstrap sample holds
    the same cases under all of them.

    Args:
      rows: of one model, method and benchmark, in any order.
      metric: the column.
      judge: name of whoever graded.
      correction: takes the judge's error out of the share; its own error widens the interval.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Raises:
      ValueError: the rows are of different models, methods or benchmarks.
    """
    parts = list(by_attack(rows, metric).values())
    clusters, _ = joined(parts)
    value, samples = _figure(parts, metric, num_samples, seed)
    note = _no_figure(parts, value)
    if correction is not None and not note:
        note = _no_correction(parts, metric) or correction.reason
        if not note:
            samples = correction.samples(samples, seed + 1)
            value = correction.value(value)
            note = MISFIT if is_clipped(samples) else ""
    estimate = None if note else percentiles(value, samples)
    has_interval = estimate is not None and len(set(clusters)) > 1
    if estimate is not None and not has_interval:
        note = ONE_CLUSTER
    return Cell(
        value=estimate.value if estimate else None,
        low=estimate.low if estimate and has_interval else None,
        high=estimate.high if estimate and has_interval else None,
        n=len(clusters),
        cases=len({row.case.id for row in rows if is_about(metric, row)}),
        answers=sum(part.answers for part in parts),
        missing=sum(part.missing for part in parts),
        cut=sum(part.cut for part in parts),
        judge=judge,
        corrected=correction is not None,
        metric=metric.name,
        unit=metric.unit,
        note=note,
    )


def _figure(
    parts: Sequence[PerCase], metric: Metric, num_samples: int, seed: int
) -> tuple[float, np.ndarray]:
    """The mean of the parts' figures, NaN if one has none, and its bootstrap samples."""
    if not parts or not all(part.rows for part in parts):
        return np.nan, np.full(num_samples, np.nan)
    clusters, places = joined(parts)

    def figure(weights: np.ndarray) -> np.ndarray:
        return mean_figure(parts, places, metric, weights)

    value = float(figure(np.ones((1, len(clusters))))[0])
    if (samples := extreme(parts, metric, value, clusters, num_samples)) is None:
        samples = resample(figure, clusters, num_samples, seed)
    return value, samples


def extreme(
    parts: Iterable[PerCase],
    metric: Metric,
    value: float,
    clusters: Sequence[Hashable],
    num_samples: int,
) -> np.ndarray | None:
    """Samples of a share that is 0 or 1 in all rows [num_samples]; None: it is not.

    Args:
      parts: the numbers.
      metric: whose figure it is.
      value: the figure.
      clusters: of all cases.
      num_samples: of the bootstrap.
    """
    top = TOPS.get(metric.unit)
    if not top or value not in (0.0, top):
        return None
    if not all((part.values == value).all() for part in parts):
        return None
    return top * extreme_samples(value / top, len(set(clusters)), num_samples)


def mean_figure(
    parts: Sequence[PerCase], places: Sequence[np.ndarray], metric: Metric, weights: np.ndarray
) -> np.ndarray:
    """The mean over the attacks under weights of the cases.

    Args:
      parts: the numbers under each attack.
      places: of each part's cases among those of the weights [rows].
      metric: whose statistic is taken.
      weights: of the cases [samples, cases].

    Returns:
      [samples]; NaN: there is none.
    """
    figures = [
        metric.statistic(part.rows, part.values, weights[:, place])
        for part, place in zip(parts, places, strict=True)
    ]
    return np.mean(figures, axis=0)


@dataclass(frozen=True)
class Difference:
    """A figure of one row of a table minus that of another, on the cases that both have.

    Attributes:
      value: the difference; None: there is none.
      low: lower end of its 95 % interval; None: there is none.
      high: upper end.
      n: number of cases.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


def difference(
    rows: Sequence[Graded],
    others: Sequence[Graded],
    metric: Metric,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Difference:
    """The figure of `rows` minus that of `others`, paired by case.

    Each bootstrap sample holds the same cases of both, so that what is hard about a case is no part
    of the error. Rows under several attacks are paired by attack, and the mean is taken over the
    attacks that both have; rows under one attack may be compared with those under another.

    Args:
      rows: of one model, method and benchmark.
      others: of the same benchmark.
      metric: the column.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Raises:
      ValueError: `rows`, or `others`, are of different models, methods or benchmarks.
    """
    pairs = list(paired(by_attack(rows, metric), by_attack(others, metric)))
    if not pairs or not all(part.rows for part, _ in pairs):
        return Difference(None)
    first, second = zip(*pairs, strict=True)
    clusters, places = joined(first)

    def figure(weights: np.ndarray) -> np.ndarray:
        one = mean_figure(first, places, metric, weights)
        return one - mean_figure(second, places, metric, weights)

    value = float(figure(np.ones((1, len(clusters))))[0])
    if np.isnan(value):
        return Difference(None, n=len(clusters))
    estimate: Estimate | None = None
    if len(set(clusters)) > 1:
        estimate = percentiles(value, resample(figure, clusters, num_samples, seed))
    low, high = (estimate.low, estimate.high) if estimate else (None, None)
    return Difference(value, low, high, len(clusters))


def paired(
    first: Mapping[str, PerCase], second: Mapping[str, PerCase]
) -> Iterator[tuple[PerCase, PerCase]]:
    """Both sides of each attack, with the cases alone that both have."""
    attacks = [(attack, attack) for attack in first if attack in second]
    if len(first) == len(second) == 1:
        attacks = [(next(iter(first)), next(iter(second)))]
    for one, other in attacks:
        cases = {row.case.id for row in first[one].rows}
        cases &= {row.case.id for row in second[other].rows}
        yield first[one].only(cases), second[other].only(cases)


def _no_figure(parts: Sequence[PerCase], value: float) -> str:
    if not any(part.cases for part in parts):
        return "no cases"
    if not all(part.rows for part in parts):
        return "no answer has a score"
    return UNDEFINED if np.isnan(value) else ""


def _no_correction(parts: Sequence[PerCase], metric: Metric) -> str:
    if metric.worst is not None and any(part.is_repeated for part in parts):
        # the judge's errors add up over the tries, so that the share of labels is no longer linear
        return "no correction: it holds for one answer a case, not for the worst of several"
    scores = {score(row, metric.key) for part in parts for row in part.rows}
    return "" if scores <= {0.0, 1.0} else "no correction: the scores are not 0 or 1"
