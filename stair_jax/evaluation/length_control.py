"""Length-controlled win rates (AlpacaEval 2; arXiv 2404.04475, section 3).

Judges prefer long answers. A logistic regression without intercept explains the preference for the
model's answer by

- a constant, how good the model is against the baseline;
- tanh(length difference / its standard deviation), what length alone contributes;
- the difficulty of the instruction, where it is known.

The length-controlled win rate is the mean of its predictions at a length difference of 0. Unlike
the authors' code, it chooses no regularisation by cross-validation: a small, fixed one keeps the
solution finite where one side wins always.
"""

from collections.abc import Sequence

import numpy as np

from stair_jax.evaluation.case import Graded

_RIDGE = 1e-4  # of the mean loss of a row; moves a win rate by less than .001
_MOST_STEPS = 50
_MOST_HALVINGS = 20
_TOLERANCE = 1e-7  # of a step: the error of the next one is its square
_ROUNDING = 1e-12  # of a loss, which is about 1


def length_controlled(
    rows: Sequence[Graded], values: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """A `Statistic`: win rates at equal length.

    Args:
      rows: whose scores have `length_difference`, in characters, and may have `difficulty`.
      values: probabilities that the model's answer is preferred [rows].
      weights: how often each sample holds each row [samples, rows].

    Returns:
      win rates from 0 to 1 [samples]; NaN where a sample holds nothing.
    """
    differences = np.array([row.scores["length_difference"] for row in rows], np.float64)
    known = [row.scores.get("difficulty") for row in rows]
    difficulty = None if None in known else np.array(known, np.float64)
    return controlled_win_rates(values, differences, difficulty, weights)


def controlled_win_rates(
    preferences: np.ndarray,
    differences: np.ndarray,
    difficulty: np.ndarray | None,
    weights: np.ndarray,
) -> np.ndarray:
    """Mean predictions at a length difference of 0.

    Args:
      preferences: from 0 to 1 [rows].
      differences: length of the model's answer less that of the baseline's [rows]. They are
        divided by their standard deviation over all rows, in every sample.
      difficulty: of the instructions [rows]; None: not known, and no part of the regression.
      weights: of the rows [samples, rows].

    Returns:
      [samples]; NaN where all weights of a sample are 0.
    """
    spread = differences.std()
    length = np.tanh(differences / spread) if spread else np.zeros_like(differences)
    columns = [np.ones_like(length), length] + ([] if difficulty is None else [difficulty])
    features = np.stack(columns, axis=1)
    coefficients = fit_logistic(features, preferences, weights)
    features[:, 1] = 0.0
    total = weights.sum(axis=1)
    sums = (weights * _sigmoid(coefficients @ features.T)).sum(axis=1)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def fit_logistic(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logistic regressions without intercept, one for each sample, by Newton's method.

    Minimises sum_i w_i (log(1 + exp(x_i b)) - y_i x_i b) + ridge / 2 * sum_i w_i * |b|^2.

    Args:
      features: [rows, features].
      targets: from 0 to 1 [rows].
      weights: not negative [samples, rows].

    Returns:
      coefficients [samples, features]; those of a sample without weight are 0.
    """
    found = np.zeros((len(weights), features.shape[1]))
    total = weights.sum(axis=1)
    under_way = np.flatnonzero(total)
    shares = weights[under_way] / total[under_way, None]
    for _ in range(_MOST_STEPS):
        if not under_way.size:
            break
        step = _newton_step(features, targets, shares, found[under_way])
        found[under_way] = _descend(features, targets, shares, found[under_way], step)
        goes_on = np.abs(step).max(axis=1) > _TOLERANCE
        under_way, shares = under_way[goes_on], shares[goes_on]
    return found


def _newton_step(
    features: np.ndarray, targets: np.ndarray, shares: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """What Newton's method takes off the coefficients [samples, features]."""
    size = features.shape[1]
    chances = _sigmoid(found @ features.T)
    slope = (shares * (chances - targets)) @ features + _RIDGE * found
    products = (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    curvature = ((shares * chances * (1 - chances)) @ products).reshape(-1, size, size)
    curvature += _RIDGE * np.eye(size)
    return np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]


def _descend(
    features: np.ndarray,
    targets: np.ndarray,
    shares: np.ndarray,
    found: np.ndarray,
    step: np.ndarray,
) -> np.ndarray:
    """Coefficients after the step, which is halved where the loss would rise by it."""
    before = _losses(features, targets, shares, found)
    part = np.ones(len(found))
    rising = np.arange(len(found))
    for _ in range(_MOST_HALVINGS):
        tried = found[rising] - part[rising, None] * step[rising]
        after = _losses(features, targets, shares[rising], tried)
        rising = rising[after > before[rising] + _ROUNDING]
        if not rising.size:
            break
        part[rising] /= 2
    return found - part[:, None] * step


def _losses(
    features: np.ndarray, targets: np.ndarray, shares: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    """Mean losses with the ridge [samples]."""
    scores = coefficients @ features.T
    each = np.logaddexp(0.0, scores) - targets * scores
    return (shares * each).sum(axis=1) + _RIDGE / 2 * (coefficients**2).sum(axis=1)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -scores))
