"""Shares of several labels without the judge's error, with its own uncertainty."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stair_jax.evaluation.bootstrap import Estimate, percentiles, resample
from stair_jax.evaluation.calibration import MISFIT, Calibration, is_clipped

# Below it, the smallest singular value of the judge's matrix, the inverse enlarges errors too much.
LEAST_SINGULAR = 0.1
_PRIOR = 0.5  # of Jeffreys, as for two labels
_ITERATIONS = 2000
_PRECISE = 1e-9


@dataclass(frozen=True)
class CorrectedShares:
    """Shares of the true labels.

    Attributes:
      shares: by label, each with its 95 % interval; empty where there is a reason against it.
      n: number of rows that the judge labelled.
      missing: number of rows without a verdict.
      reason: why there are none; "": there are.
    """

    shares: Mapping[str, Estimate] = field(default_factory=dict)
    n: int = 0
    missing: int = 0
    reason: str = ""


def corrected_shares(
    calibration: Calibration,
    judge_labels: Sequence[str | None],
    clusters: Sequence[Hashable] | None = None,
    num_samples: int = 2000,
    seed: int = 0,
) -> CorrectedShares:
    """Shares of the true labels among rows that only the judge has labelled.

    With M[j, t], how often the judge gives label j to a row of true label t, the judge's shares are
    q = M p. The estimate is the p with p >= 0 and sum 1 that minimises |M p - q|: the solution of
    the equation where that has these properties, which for two labels is the formula of Rogan and
    Gladen, clipped. Bootstrap samples draw the rows by clusters, and each column of M from the
    Dirichlet posterior of its counts under the prior of Jeffreys.

    Args:
      calibration: of the judge.
      judge_labels: a row each; None: the verdict is missing.
      clusters: of the rows; None: each stands alone.
      num_samples: number of bootstrap samples.
      seed: for the draws.
    """
    groups: Sequence[Hashable] = range(len(judge_labels)) if clusters is None else clusters
    rows = [(a, b) for a, b in zip(judge_labels, groups, strict=True) if a is not None]
    missing = len(judge_labels) - len(rows)
    labels = calibration.labels
    reason = _reason(calibration, {label for label, _ in rows})
    if reason or not rows:
        return CorrectedShares({}, len(rows), missing, reason or "no row has a verdict")
    one_hot = np.eye(len(labels))[[labels.index(label) for label, _ in rows]]

    def seen(weights: np.ndarray) -> np.ndarray:
        return weights @ one_hot / weights.sum(axis=1, keepdims=True)

    counts = np.array(calibration.counts, np.float64)
    shares = resample(seen, [group for _, group in rows], num_samples, seed)
    matrices = _draws(counts, num_samples, np.random.default_rng(seed + 1))
    value = nearest_shares(_matrix(counts)[None], one_hot.mean(axis=0)[None])[0]
    samples = nearest_shares(matrices, shares)
    if all(is_clipped(column) for column in samples.T):
        return CorrectedShares({}, len(rows), missing, MISFIT)
    estimates = [percentiles(value[k], samples[:, k]) for k in range(len(labels))]
    found = {label: one for label, one in zip(labels, estimates, strict=True) if one is not None}
    return CorrectedShares(found, len(rows), missing)


def _reason(calibration: Calibration, used: set[str]) -> str:
    """Why the matrix cannot be used; "": it can."""
    if not calibration.labels:
        return "no correction: there are no labelled rows"
    counts = np.array(calibration.counts)
    if unknown := sorted(used - set(calibration.labels)):
        return f"no correction: no labelled row is {' or '.join(unknown)}"
    if not counts.sum(axis=1).all():
        none = [
            label for label, row in zip(calibration.labels, counts, strict=True) if not row.sum()
        ]
        return f"no correction: no labelled row is {' or '.join(none)}"
    smallest = float(np.linalg.svd(_matrix(counts), compute_uv=False)[-1])
    if smallest < LEAST_SINGULAR:
        return (
            "no correction: the judge hardly tells some labels apart (smallest singular value of "
            f"its matrix {smallest:.2f}, below {LEAST_SINGULAR})"
        )
    return ""


def _matrix(counts: np.ndarray) -> np.ndarray:
    """M[judge, true] of counts [true, judge]."""
    return (counts / counts.sum(axis=1, keepdims=True)).T


def _draws(counts: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Matrices as they may be [samples, judge, true]."""
    columns = [rng.dirichlet(row + _PRIOR, num_samples) for row in counts]
    return np.stack(columns, axis=2)


def nearest_shares(matrices: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The shares p >= 0 with sum 1 that minimise |M p - q|.

    Where the solution of M p = q has no negative share it is the answer, and its sum is 1, as the
    columns of M have the sum 1. Elsewhere by the projected gradient with momentum (Beck and
    Teboulle, SIAM Journal on Imaging Sciences 2, 2009).

    Args:
      matrices: M [samples, labels, labels].
      seen: q [samples, labels].

    Returns:
      p [samples, labels].
    """
    with np.errstate(all="ignore"):
        shares = (np.linalg.pinv(matrices) @ seen[..., None])[..., 0]
    inside = (shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < _PRECISE)
    if not inside.all():
        shares[~inside] = _projected(matrices[~inside], seen[~inside], shares[~inside])
    return shares


def _projected(matrices: np.ndarray, seen: np.ndarray, start: np.ndarray) -> np.ndarray:
    transposed = matrices.transpose(0, 2, 1)
    squares, right = transposed @ matrices, (transposed @ seen[..., None])[..., 0]
    step = 1 / np.linalg.norm(squares, 2, axis=(1, 2))[:, None]
    shares = ahead = onto_simplex(start)
    momentum = 1.0
    for _ in range(_ITERATIONS):
        gradient = (squares @ ahead[..., None])[..., 0] - right
        following = onto_simplex(ahead - step * gradient)
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + (momentum - 1) / grown * (following - shares)
        change = np.abs(following - shares).max()
        shares, momentum = following, grown
        if change < _PRECISE:
            break
    return shares


def onto_simplex(points: np.ndarray) -> np.ndarray:
    """The nearest points with p >= 0 and sum 1 (Duchi et al., ICML 2008, figure 1).

    Args:
      points: [samples, labels].
    """
    falling = -np.sort(-points, axis=1)
    sums = falling.cumsum(axis=1) - 1
    places = np.arange(1, points.shape[1] + 1)
    last = (falling * places > sums).sum(axis=1) - 1
    rows = np.arange(len(points))
    return np.maximum(points - (sums[rows, last] / (last + 1))[:, None], 0)
