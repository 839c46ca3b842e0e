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

from collections.abc import Callable, Sequence

import numpy as np

from stair_jax.evaluation.case import Graded

_RIDGE = 1e-4  # times the number of rows; moves a win rate by less than .001
_MOST_STEPS = 50
_TOLERANCE = 1e-9  # of a Newton step
_SHORTEST = 2.0**-20  # part of a step that is tried last


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
    ridge = _RIDGE * np.maximum(weights.sum(axis=1), 1e-12)
    identity = np.eye(features.shape[1])

    def losses(coefficients: np.ndarray) -> np.ndarray:
        scores = coefficients @ features.T
        each = np.logaddexp(0.0, scores) - targets * scores
        return (weights * each).sum(axis=1) + ridge / 2 * (coefficients**2).sum(axis=1)

    found = np.zeros((len(weights), features.shape[1]))
    loss = losses(found)
    for _ in range(_MOST_STEPS):
        chances = _sigmoid(found @ features.T)
        slope = (weights * (chances - targets)) @ features + ridge[:, None] * found
        curved = weights * chances * (1 - chances)
        curvature = np.einsum("sn,ni,nj->sij", curved, features, features, optimize=True)
        curvature += ridge[:, None, None] * identity
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        found, loss = _descend(losses, found, loss, step)
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            break
    return found


def _descend(
    losses: Callable[[np.ndarray], np.ndarray],
    found: np.ndarray,
    loss: np.ndarray,
    step: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Halves the step of a sample until its loss does not rise; keeps what it had if none does."""
    part = np.ones(len(found))
    while True:
        tried = found - part[:, None] * step
        new = losses(tried)
        rises = (new > loss) & (part > _SHORTEST)
        if not rises.any():
            better = new <= loss
            return np.where(better[:, None], tried, found), np.where(better, new, loss)
        part = np.where(rises, part / 2, part)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -scores))
