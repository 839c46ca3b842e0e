"""Cells of a table: a figure with its interval, and what it rests on."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.bootstrap import Estimate, extreme_samples, percentiles, resample
from stair_jax.evaluation.calibration import Correction
from stair_jax.evaluation.case import Graded
from stair_jax.evaluation.per_case import PerCase, per_case, score

NUM_SAMPLES = 2000


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

    Args:
      rows: of one model, method, benchmark and attack, in any order.
      metric: the column.
      judge: name of whoever graded.
      correction: takes the judge's error out of the share; its own error widens the interval.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Raises:
      ValueError: the rows are of different models, methods, benchmarks or attacks.
    """
    numbers = per_case(rows, metric)
    value, samples = figure_of(numbers, metric, num_samples, seed)
    note = _no_figure(numbers, value)
    if correction is not None and not note:
        note = _no_correction(numbers, metric) or correction.reason
        if not note:
            samples = correction.samples(samples, seed + 1)
            value = correction.value(value)
    estimate = None if note else percentiles(value, samples)
    has_interval = estimate is not None and len(set(numbers.clusters)) > 1
    if estimate is not None and not has_interval:
        note = "no interval: all cases are of one cluster"
    return Cell(
        value=estimate.value if estimate else None,
        low=estimate.low if estimate and has_interval else None,
        high=estimate.high if estimate and has_interval else None,
        n=len(numbers.rows),
        cases=numbers.cases,
        answers=numbers.answers,
        missing=numbers.missing,
        cut=numbers.cut,
        judge=judge,
        corrected=correction is not None,
        metric=metric.name,
        unit=metric.unit,
        note=note,
    )


def figure_of(
    numbers: PerCase, metric: Metric, num_samples: int, seed: int
) -> tuple[float, np.ndarray]:
    """The figure of the cases' numbers, NaN if there is none, and its bootstrap samples."""
    if not numbers.rows:
        return np.nan, np.full(num_samples, np.nan)

    def figure(weights: np.ndarray) -> np.ndarray:
        return metric.statistic(numbers.rows, numbers.values, weights)

    value = float(figure(np.ones((1, len(numbers.rows))))[0])
    top = {"share": 1.0, "percent": 100.0}.get(metric.unit)
    if top and value in (0.0, top) and np.ptp(numbers.values) == 0:
        count = len(set(numbers.clusters))
        return value, top * extreme_samples(value / top, count, num_samples)
    return value, resample(figure, numbers.clusters, num_samples, seed)


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
    of the error.

    Args:
      rows: of one model, method, benchmark and attack.
      others: of another model or method, or of another attack.
      metric: the column.
      num_samples: number of bootstrap samples.
      seed: for the resampling.
    """
    first, second = _shared(per_case(rows, metric), per_case(others, metric))
    if not first.rows:
        return Difference(None)

    def figure(weights: np.ndarray) -> np.ndarray:
        one = metric.statistic(first.rows, first.values, weights)
        return one - metric.statistic(second.rows, second.values, weights)

    value = float(figure(np.ones((1, len(first.rows))))[0])
    if np.isnan(value):
        return Difference(None, n=len(first.rows))
    estimate: Estimate | None = None
    clusters: list[Hashable] = first.clusters
    if len(set(clusters)) > 1:
        estimate = percentiles(value, resample(figure, clusters, num_samples, seed))
    low, high = (estimate.low, estimate.high) if estimate else (None, None)
    return Difference(value, low, high, len(first.rows))


def _shared(first: PerCase, second: PerCase) -> tuple[PerCase, PerCase]:
    """Both with the cases alone that both have."""
    ids = {row.case.id for row in first.rows} & {row.case.id for row in second.rows}
    return _only(first, ids), _only(second, ids)


def _only(numbers: PerCase, ids: set[str]) -> PerCase:
    kept = [index for index, row in enumerate(numbers.rows) if row.case.id in ids]
    rows = tuple(numbers.rows[index] for index in kept)
    return PerCase(rows, numbers.values[kept], len(kept), len(kept), 0, 0)


def _no_figure(numbers: PerCase, value: float) -> str:
    if not numbers.cases:
        return "no cases"
    if not numbers.rows:
        return "no answer has a score"
    return "undefined for these numbers" if np.isnan(value) else ""


def _no_correction(numbers: PerCase, metric: Metric) -> str:
    if metric.worst is not None and numbers.is_repeated:
        # the judge's errors add up over the tries, so that the share of labels is no longer linear
        return "no correction: it holds for one answer a case, not for the worst of several"
    scores = [score(row, metric.key) for row in numbers.rows]
    return "" if {*scores} <= {0.0, 1.0} else "no correction: the scores are not 0 or 1"
