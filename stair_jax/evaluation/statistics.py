"""Statistics of graded answers under any weights of the cases, as the bootstrap needs them."""

from collections.abc import Callable, Sequence

import numpy as np

from stair_jax.evaluation.case import Graded

# (rows, their numbers [rows], weights [samples, rows]) -> [samples]; NaN: there is none. Weights
# are how often a bootstrap sample holds each row; all ones give the figure itself.
Statistic = Callable[[Sequence[Graded], np.ndarray, np.ndarray], np.ndarray]


def mean(rows: Sequence[Graded], values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean."""
    return _ratio(weights @ values, weights.sum(axis=1))


def macro_mean(rows: Sequence[Graded], values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the means of the groups."""
    groups = list(dict.fromkeys(row.case.group for row in rows))
    members = np.array([[row.case.group == group for row in rows] for group in groups], np.float64)
    means = _ratio((weights * values) @ members.T, weights @ members.T)
    return means.mean(axis=1)


def correlation(rows: Sequence[Graded], values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation of the values with the references, which are numbers."""
    wanted = np.array([float(row.case.reference) for row in rows])
    total = weights.sum(axis=1, keepdims=True)

    def centred(numbers: np.ndarray) -> np.ndarray:
        return numbers - _ratio(weights @ numbers[:, None], total)

    x, y = centred(values), centred(wanted)
    spread = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    return _ratio((weights * x * y).sum(axis=1), spread)


def ratio_to(below: str) -> Statistic:
    """The sum of the numbers divided by the sum of another score of the same answers.

    Args:
      below: name of that score in `Graded.scores`, which no row lacks that has the number.
    """

    def ratio(rows: Sequence[Graded], values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        divisors = np.array([row.scores[below] for row in rows], np.float64)
        return _ratio(weights @ values, weights @ divisors)

    return ratio


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    none = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=none, where=denominator != 0)
