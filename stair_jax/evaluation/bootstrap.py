"""Cluster bootstrap: confidence intervals for means over prompts that are not independent."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval [low, high]."""

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
    labels = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    index = np.array([labels[label] for label in clusters])
    sums = np.bincount(index, weights=np.asarray(values, np.float64))
    sizes = np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(sums), size=(num_samples, len(sums)))
    # Clusters differ in size: a ratio of sums, not a mean of the cluster means.
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))
