"""How far two who label the same rows agree: share, Cohen's kappa, confusion matrix."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from stair_jax.evaluation.bootstrap import Estimate, extreme_samples, percentiles, resample


@dataclass(frozen=True)
class Agreement:
    """Agreement of two on the rows that both labelled.

    Attributes:
      n: number of these rows.
      missing: number of rows that one of them, or both, gave no label.
      share: of rows with the same label, with its interval; None without rows.
      kappa: Cohen's kappa, (share - chance) / (1 - chance), where chance is the share expected of
        two who label at random with the same frequencies (Cohen, Educational and Psychological
        Measurement 20, 1960); None without rows, or where both gave all rows the same label.
    """

    n: int
    missing: int
    share: Estimate | None
    kappa: Estimate | None


def agreement(
    first: Sequence[str | None],
    second: Sequence[str | None],
    clusters: Sequence[Hashable] | None = None,
    num_samples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Agreement with 95 % intervals by the cluster bootstrap.

    Args:
      first: labels of the one, a row each; None: missing.
      second: labels of the other, of the same rows.
      clusters: of the rows; None: each stands alone.
      num_samples: number of bootstrap samples.
      seed: for the resampling.

    Raises:
      ValueError: the numbers of labels differ.
    """
    groups: Sequence[Hashable] = range(len(first)) if clusters is None else clusters
    triples = zip(first, second, groups, strict=True)
    rows = [(a, b, group) for a, b, group in triples if a is not None and b is not None]
    missing = len(first) - len(rows)
    if not rows:
        return Agreement(0, missing, None, None)
    labels = sorted({label for a, b, _ in rows for label in (a, b)})
    cells = np.array([labels.index(a) * len(labels) + labels.index(b) for a, b, _ in rows])
    one_hot = np.eye(len(labels) ** 2)[cells]

    def figures(weights: np.ndarray) -> np.ndarray:
        matrices = (weights @ one_hot).reshape(-1, len(labels), len(labels))
        return np.stack(share_and_kappa(matrices), axis=1)

    share, kappa = figures(np.ones((1, len(rows))))[0]
    kept = [group for _, _, group in rows]
    samples = resample(figures, kept, num_samples, seed)
    shares = samples[:, 0]
    if share in (0.0, 1.0):
        shares = extreme_samples(share, len(set(kept)), num_samples)
    return Agreement(
        len(rows),
        missing,
        percentiles(share, shares),
        None if np.isnan(kappa) else percentiles(kappa, samples[:, 1]),
    )


def share_and_kappa(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of agreement and Cohen's kappa of confusion matrices.

    Args:
      matrices: counts or weights [..., labels, labels].

    Returns:
      both [...]; kappa is NaN where agreement by chance is certain.
    """
    total = matrices.sum(axis=(-2, -1))
    share = np.trace(matrices, axis1=-2, axis2=-1) / total
    chance = (matrices.sum(axis=-1) * matrices.sum(axis=-2)).sum(axis=-1) / total**2
    room = 1 - chance
    # of one label alone, rounding leaves no exact 0
    kappa = np.full(share.shape, np.nan)
    return share, np.divide(share - chance, room, out=kappa, where=room > 1e-12)


def confusion(
    first: Sequence[str | None], second: Sequence[str | None], labels: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Counts of rows [label of the first][label of the second]; rows without a label are left out.

    Raises:
      ValueError: the numbers of labels differ.
    """
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for a, b in zip(first, second, strict=True):
        if a is not None and b is not None:
            counts[place[a], place[b]] += 1
    return tuple(tuple(map(int, row)) for row in counts)
