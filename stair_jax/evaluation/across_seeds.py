"""Figures over several seeds, with intervals over seeds and cases.

A row of a table is trained, and answers, once for each seed, and all seeds are asked the same
cases. A figure is the mean over the seeds. Its interval is that of a bootstrap which draws both:
the cases (whole clusters), the same ones for all seeds since what makes a case hard is common to
them, and the seeds. That is the two-way or pigeonhole bootstrap (Owen, Annals of Applied Statistics
1, 2007); drawing the cases of each seed anew would take them for more cases than there are.

Of S seeds, S - 1 are drawn with replacement, which makes the variance of their mean that of S
independent ones (Rao and Wu, Journal of the American Statistical Association 83, 1988). As S is
small, percentiles are still too near: both ends are moved away from the figure by the ratio of the
quantiles of Student's t and of the normal distribution, where the degrees of freedom are those of
Satterthwaite (Biometrics Bulletin 2, 1946) for the two parts of the variance. Where seeds hardly
differ the ratio is 1. With one seed the interval is that of the cases alone.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stair_jax.evaluation.benchmark import Metric
from stair_jax.evaluation.bootstrap import Figure, percentiles, resample
from stair_jax.evaluation.case import Graded
from stair_jax.evaluation.cells import (
    NUM_SAMPLES,
    ONE_CLUSTER,
    TOPS,
    UNDEFINED,
    extreme,
    mean_figure,
    paired,
)
from stair_jax.evaluation.per_case import PerCase, by_attack, is_about, joined

BySeed = Mapping[str, Sequence[Graded]]  # the answers of each seed
Parts = Sequence[Sequence[PerCase]]  # of each seed, under each attack
_NORMAL = 1.959963984540054  # the .975 quantile
_LARGE = 200.0  # degrees of freedom from which a series is exact to 1e-5


@dataclass(frozen=True)
class SeedCell:
    """A figure over seeds, or a difference of two, with its 95 % interval.

    Attributes:
      value: mean over the seeds; None: there is none, and `note` says why.
      low: lower end of the interval; None: there is none.
      high: upper end.
      seeds: number of seeds; of a difference, those of the first row.
      n: number of cases that have a number under some seed.
      cases: number of cases that were asked; of a difference, that both rows have.
      missing: number of answers without a score.
      least: smallest figure of a seed; of a difference, where seeds are paired.
      greatest: largest figure of a seed.
      unit: see `Metric.unit`.
      note: why there is no figure or no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    n: int = 0
    cases: int = 0
    missing: int = 0
    least: float | None = None
    greatest: float | None = None
    unit: str = "share"
    note: str = ""


@dataclass(frozen=True)
class _Side:
    """The figures of seeds.

    Attributes:
      values: of each seed [seeds].
      samples: of the bootstrap of the cases [samples, seeds].
    """

    values: np.ndarray
    samples: np.ndarray

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Samples of the mean over seeds that are drawn too [samples]; NaN: one lacks a number."""
        num_samples, seeds = self.samples.shape
        if seeds == 1:
            return self.samples[:, 0]
        counts = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), num_samples)
        return np.where(counts > 0, counts * self.samples, 0).sum(axis=1) / (seeds - 1)

    @property
    def variance(self) -> float:
        """Of the mean, by what differs between the seeds; 0 for one seed."""
        return float(self.values.var(ddof=1) / len(self.values)) if len(self.values) > 1 else 0.0


def seed_cell(
    rows: BySeed, metric: Metric, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> SeedCell:
    """A metric over seeds, with its interval.

    Args:
      rows: of one row and column of a table, by seed.
      metric: the column.
      num_samples: of the bootstrap.
      seed: for the resampling.

    Raises:
      ValueError: the rows of a seed are of different models, methods or benchmarks.
    """
    parts = [list(by_attack(own, metric).values()) for own in rows.values()]
    asked = {row.case.id for own in rows.values() for row in own if is_about(metric, row)}
    missing = sum(part.missing for own in parts for part in own)
    none = SeedCell(None, seeds=len(parts), cases=len(asked), missing=missing, unit=metric.unit)
    if not all(own and all(part.rows for part in own) for own in parts):
        note = "no answer has a score" if asked else "no cases"
        return replace(none, note=note)
    clusters, places = _places(parts)
    figure = _figure(parts, places, metric)
    values = figure(np.ones((1, len(clusters))))[0]
    none = replace(none, n=len(clusters))
    if np.isnan(values).any():
        return replace(none, note=UNDEFINED)
    every = [part for own in parts for part in own]
    common = extreme(every, metric, float(values[0]), clusters, num_samples)
    if common is None:
        samples = resample(figure, clusters, num_samples, seed)
    else:  # the same of all seeds
        samples = np.repeat(common[:, None], len(values), axis=1)
    return _with_interval(none, [_Side(values, samples)], clusters, seed)


def seed_difference(
    rows: BySeed, others: BySeed, metric: Metric, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> SeedCell:
    """The figure of `rows` minus that of `others`, on the cases that both have.

    Each bootstrap sample holds the same cases of both. Where both have the same seeds, they are
    drawn together too, as a seed's runs have more in common than the cases; otherwise, such as
    beside a model that is not trained, each side's by themselves.

    Args:
      rows: of one row and column of a table, by seed.
      others: of another row.
      metric: the column.
      num_samples: of the bootstrap.
      seed: for the resampling.

    Raises:
      ValueError: as `seed_cell`.
    """
    is_paired = set(rows) == set(others)
    own, other = _on_common_cases(rows, others, metric)
    none = SeedCell(None, seeds=len(rows), unit=metric.unit)
    if not all(side and all(part.rows for part in side) for side in (*own, *other)):
        return replace(none, note="no case has a number in both")
    clusters, places = _places([*own, *other])
    first = _figure(own, places[: len(own)], metric)
    second = _figure(other, places[len(own) :], metric)

    def figure(weights: np.ndarray) -> np.ndarray:
        return np.concatenate([first(weights), second(weights)], axis=1)

    values = figure(np.ones((1, len(clusters))))[0]
    none = replace(none, n=len(clusters), cases=len(clusters))
    if np.isnan(values).any():
        return replace(none, note=UNDEFINED)
    samples = resample(figure, clusters, num_samples, seed)
    one = _Side(values[: len(own)], samples[:, : len(own)])
    two = _Side(-values[len(own) :], -samples[:, len(own) :])
    sides = [one, two]
    if is_paired:
        sides = [_Side(one.values + two.values, one.samples + two.samples)]
    return _with_interval(none, sides, clusters, seed, is_difference=True)


def t_quantile(freedom: float) -> float:
    """The .975 quantile of Student's t distribution, by its integral over the angle.

    With t = sqrt(freedom) tan(angle) the density is that of cos(angle)^(freedom - 1).

    Args:
      freedom: degrees of freedom, at least 1.
    """
    if freedom > _LARGE:
        z = _NORMAL
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(0.95 * share[-1], share, angles))


def _places(parts: Parts) -> tuple[list[Hashable], list[Sequence[np.ndarray]]]:
    """The clusters of all cases, and for each seed the places of its parts' cases."""
    clusters, flat = joined([part for own in parts for part in own])
    remaining = iter(flat)
    return clusters, [[next(remaining) for _ in own] for own in parts]


def _figure(parts: Parts, places: Sequence[Sequence[np.ndarray]], metric: Metric) -> Figure:
    """A function of the weights of the cases [samples, cases]: figures [samples, seeds]."""

    def figure(weights: np.ndarray) -> np.ndarray:
        pairs = zip(parts, places, strict=True)
        return np.stack([mean_figure(own, at, metric, weights) for own, at in pairs], axis=1)

    return figure


def _on_common_cases(rows: BySeed, others: BySeed, metric: Metric) -> tuple[Parts, Parts]:
    """The parts of both sides, of the attacks and cases that both have.

    Seeds of the same name are compared with each other; otherwise each with all of the other side.
    """
    own = {name: by_attack(found, metric) for name, found in rows.items()}
    other = {name: by_attack(found, metric) for name, found in others.items()}
    if set(own) == set(other):
        both = [list(paired(own[name], other[name])) for name in own]
        return [[one for one, _ in each] for each in both], [[two for _, two in e] for e in both]
    first, second = _merged(own.values()), _merged(other.values())
    return (
        [[one for one, _ in paired(each, second)] for each in own.values()],
        [[one for one, _ in paired(each, first)] for each in other.values()],
    )


def _merged(seeds: Iterable[Mapping[str, PerCase]]) -> dict[str, PerCase]:
    """The rows of all seeds by attack, to know which cases there are."""
    found: dict[str, PerCase] = {}
    for attacks in seeds:
        for attack, part in attacks.items():
            rows = (*(found[attack].rows if attack in found else ()), *part.rows)
            found[attack] = PerCase(rows, np.zeros(len(rows)), 0, 0, 0, 0)
    return found


def _with_interval(
    none: SeedCell,
    sides: Sequence[_Side],
    clusters: Sequence[Hashable],
    seed: int,
    is_difference: bool = False,
) -> SeedCell:
    """The cell of a sum of means over seeds, with its interval where there is one."""
    value = float(sum(side.values.mean() for side in sides))
    cell = replace(none, value=value)
    if len(sides) == 1:
        values = sides[0].values
        cell = replace(cell, least=float(values.min()), greatest=float(values.max()))
    count = len(set(clusters))
    rng = np.random.default_rng(seed + 1)
    drawn = np.sum([side.drawn(rng) for side in sides], axis=0)
    estimate = percentiles(value, drawn) if count > 1 else None
    if estimate is None:
        return replace(cell, note=ONE_CLUSTER if count < 2 else "no interval: too few cases")
    of_cases = np.sum([side.samples.mean(axis=1) for side in sides], axis=0)
    parts = [(float(np.nanvar(of_cases)), count - 1.0)]
    parts += [(side.variance, len(side.values) - 1.0) for side in sides]
    ratio = t_quantile(_freedom(parts)) / _NORMAL if any(v for v, _ in parts[1:]) else 1.0
    low = value - ratio * (value - estimate.low)
    high = value + ratio * (estimate.high - value)
    if top := TOPS.get(none.unit):
        low, high = max(low, -top if is_difference else 0.0), min(high, top)
    return replace(cell, low=low, high=high)


def _freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, each with its own (Satterthwaite)."""
    total = sum(variance for variance, _ in parts)
    return max(1.0, total**2 / sum(v**2 / freedom for v, freedom in parts if v))
