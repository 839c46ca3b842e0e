"""Area under the ROC curve (AUC) of a score against labels, with a confidence interval.

The AUC is the probability that a case that is labelled good scores higher than one that is labelled
bad, ties counting one half: 1 is a perfect score, 1/2 chance, and 0 one that is upside down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z95 = 1.959963984540054  # the standard normal is within +- this with probability .95
_HALVINGS = 60  # of an interval of length 1: further ones change no double


@dataclass(frozen=True)
class Auc:
    """An AUC and its 95 % confidence interval.

    Attributes:
      value: the AUC, from 0 to 1.
      low: lower end of the interval.
      high: upper end.
      positives: number of cases labelled good.
      negatives: number of cases labelled bad.
    """

    value: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        """As in ".92 [.84, .96]"."""
        value, low, high = (f"{number:.2f}" for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def auc(scores: Sequence[float], labels: Sequence[int]) -> Auc | None:
    """The AUC of scores against labels of +1 (good) and -1 (bad).

    Args:
      scores: finite numbers; the larger, the better.
      labels: +1 or -1, one a score.

    Returns:
      None where one of the two labels has no case.
    """
    values, is_good = np.asarray(scores, float), np.asarray(labels) > 0
    good, bad = values[is_good], values[~is_good]
    if not good.size or not bad.size:
        return None
    differences = good[:, None] - bad[None, :]
    value = float(np.mean((differences > 0) + (differences == 0) / 2))
    return Auc(value, *interval(value, good.size, bad.size), good.size, bad.size)


def standard_error(value: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC by Hanley and McNeil, Radiology 143 (1982), formula 1.

    Their approximation of its two moments by those of exponential distributions.
    """
    both_good = value / (2 - value)
    both_bad = 2 * value * value / (1 + value)
    variance = (
        value * (1 - value)
        + (positives - 1) * (both_good - value * value)
        + (negatives - 1) * (both_bad - value * value)
    ) / (positives * negatives)
    return float(np.sqrt(max(variance, 0.0)))


def interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """The 95 % confidence interval of an AUC: all values that it would not be surprising under.

    That is, the p with `|value - p| <= 1.96 standard_error(p)` (a score interval, as Newcombe,
    Statistics in Medicine 25 (2006), recommends). Around the estimate's own standard error, a
    perfect score would get an interval of no length, however few the cases.
    """

    def surprises(p: float) -> bool:
        return abs(value - p) > _Z95 * standard_error(p, positives, negatives)

    return _border(surprises, 0.0, value), _border(surprises, 1.0, value)


def _border(surprises, outside: float, inside: float) -> float:  # type: ignore[no-untyped-def]
    """Where `surprises` changes, between a place where it may hold and one where it does not."""
    if not surprises(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if surprises(middle):
            outside = middle
        else:
            inside = middle
    return inside
