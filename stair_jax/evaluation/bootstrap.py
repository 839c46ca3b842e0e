"""Cluster bootstrap: confidence intervals for figures of prompts that are not independent."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 20  # weights that are held at once, about: 8 MiB

# weights [samples, rows] -> figures [samples, ...]; NaN: there is none
Figure = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval [low, high]."""

    value: float
    low: float
    high: float


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable], num_samples: int = 2000, seed: int = 0
) -> Estimate | None:
    """Mean of `values` with a 95 % percentile interval by the cluster bootstrap.

    Prompts about the same item are not independent, so whole clusters are resampled, not prompts.

    Args:
      values: one number per prompt.
      clusters: cluster of each prompt, e.g. the item that it is about.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Returns:
      the estimate; None if there are no values.
    """
    if not values:
        return None
    index = _numbered(clusters)
    sums = np.bincount(index, weights=np.asarray(values, np.float64))
    sizes = np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(sums), size=(num_samples, len(sums)))
    # Clusters differ in size: a ratio of sums, not a mean of the cluster means.
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))


def resample(
    figure: Figure, clusters: Sequence[Hashable], num_samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """A figure of bootstrap samples of whole clusters.

    The samples are those of `mean_interval` for the same clusters in the same order.

    Args:
      figure: of rows under weights, which are how often a sample holds each row.
      clusters: cluster of each row; at least one.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Returns:
      what `figure` returns, for all samples [num_samples, ...].
    """
    index = _numbered(clusters)
    count = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(index))
    parts = []
    for start in range(0, num_samples, block):
        draws = rng.integers(count, size=(min(block, num_samples - start), count))
        cells = draws + count * np.arange(len(draws))[:, None]
        held = np.bincount(cells.ravel(), minlength=draws.size).reshape(draws.shape)
        parts.append(figure(held[:, index].astype(np.float64)))
    return np.concatenate(parts)


def percentiles(value: float, samples: np.ndarray) -> Estimate | None:
    """A figure with the 95 % percentile interval of its bootstrap samples.

    The interval is extended to hold the value, which a bias of the bootstrap can leave outside
    where there are few rows.

    Args:
      value: the figure itself.
      samples: of the bootstrap; those that are NaN, because a sample lacks what the figure needs,
        are left out.

    Returns:
      None if all samples are NaN.
    """
    known = samples[~np.isnan(samples)]
    if not known.size:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def extreme_samples(value: float, num_clusters: int, num_samples: int) -> np.ndarray:
    """Samples of a share that is 0 or 1 in all rows, where all bootstrap samples are the same.

    No row of n tells that the share is below some bound, not that it is 0. The samples are
    quantiles of the distribution whose 97.5 % quantile is the exact bound of Clopper and Pearson,
    Biometrika 26 (1934): 1 - .025^(1/n) for the share 0.

    Args:
      value: 0.0 or 1.0.
      num_clusters: n; rows of one cluster count once.
      num_samples: number of samples [num_samples], in ascending distance from `value`.
    """
    levels = np.linspace(0, 1, num_samples)
    return np.abs(value - (1 - (1 - levels) ** (1 / num_clusters)))


def _numbered(clusters: Sequence[Hashable]) -> np.ndarray:
    """The clusters as numbers, in the order in which they come first [rows]."""
    labels = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    return np.array([labels[label] for label in clusters])
