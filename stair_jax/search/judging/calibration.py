"""Platt calibration: a judge's scores as probabilities, from a few labelled cases.

A judge may order answers well and yet have its zero in the wrong place, or be upside down. A
logistic curve through labelled cases mends both: its offset moves the zero, and a negative slope
turns the scores round. It is monotone, so that an AUC of 1/2 stays what it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_jax.search.judging.replies import Question, sign

_STEPS = 100  # of Newton's method, at most; a few suffice
_SMALLEST_STEP = 1e-10
_RIDGE = 1e-12  # keeps the Hessian regular where all scores are alike
_TOLERANCE = 1e-9  # of the gradient


@dataclass(frozen=True)
class Platt:
    """P(good | score) = 1 / (1 + exp(-(slope * score + offset))).

    Attributes:
      slope: negative where the judge is upside down.
      offset: log odds of good at a score of 0.
    """

    slope: float
    offset: float

    def __call__(self, score: float) -> float:
        """The calibrated score 2 P(good | score) - 1, in [-1, 1]."""
        return float(np.tanh((self.slope * score + self.offset) / 2))


# By question.
Calibration = Mapping[Question, Platt]


def fit(scores: Sequence[float], labels: Sequence[int]) -> Platt | None:
    """The curve of largest likelihood, regularised as in Platt's paper.

    His targets are (n+ + 1) / (n+ + 2) for the good and 1 / (n- + 2) for the bad ones (Platt,
    "Probabilistic outputs for support vector machines", 1999, section 2.2), so that separable cases
    give a finite slope. Newton's method with backtracking, after Lin, Lin and Weng, "A note on
    Platt's probabilistic outputs", Machine Learning 68 (2007), algorithm 1.

    Args:
      scores: finite numbers.
      labels: +1 (good) or -1 (bad), one a score.

    Returns:
      None where one of the two labels has no case.
    """
    values, is_good = np.asarray(scores, float), np.asarray(labels) > 0
    good, bad = int(is_good.sum()), int((~is_good).sum())
    if not good or not bad:
        return None
    targets = np.where(is_good, (good + 1) / (good + 2), 1 / (bad + 2))
    inputs = np.stack([values, np.ones_like(values)])
    weights = np.array([0.0, np.log((good + 1) / (bad + 1))])
    loss = _loss(weights, inputs, targets)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(weights @ inputs)))
        gradient = inputs @ (chance - targets)
        if np.max(np.abs(gradient)) < _TOLERANCE:
            break
        hessian = (inputs * (chance * (1 - chance))) @ inputs.T + _RIDGE * np.eye(2)
        direction = -np.linalg.solve(hessian, gradient)
        step, slope = 1.0, float(gradient @ direction)
        while step >= _SMALLEST_STEP:
            moved = weights + step * direction
            new_loss = _loss(moved, inputs, targets)
            if new_loss < loss + 1e-4 * step * slope:
                weights, loss = moved, new_loss
                break
            step /= 2
        else:
            break
    return Platt(float(weights[0]), float(weights[1]))


@dataclass(frozen=True)
class Calibrator:
    """What becomes of the scores of a judge: calibrated, and S perhaps thresholded.

    Attributes:
      curves: by question; a question that is not in it keeps its scores.
      safety_score: "sign": of a calibrated S the sign counts alone; "expected": S itself.
    """

    curves: Calibration
    safety_score: str = "expected"

    def __call__(self, question: Question, score: float) -> float:
        """The score that a reward is made of."""
        if (curve := self.curves.get(question)) is not None:
            score = curve(score)
        takes_sign = question == "safety" and self.safety_score == "sign"
        return sign(score) if takes_sign else score


def to_record(calibration: Calibration) -> dict[str, dict[str, float]]:
    """A calibration as plain JSON values."""
    return {question: vars(curve) for question, curve in calibration.items()}


def from_record(record: Mapping[str, Any]) -> Calibration:
    """Reads what `to_record` wrote."""
    return {question: Platt(**values) for question, values in record.items()}  # type: ignore[misc]


def _loss(weights: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> float:
    """The cross-entropy of the targets, summed over the cases."""
    logits = weights @ inputs
    return float(np.sum(np.logaddexp(0, logits) - targets * logits))
