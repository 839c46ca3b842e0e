"""A judge against labels of humans: confusion matrix, and shares without the judge's error."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stair_jax.errors import UserError
from stair_jax.evaluation.agreement import Agreement, agreement, confusion
from stair_jax.evaluation.bootstrap import Estimate
from stair_jax.evaluation.escaping import markdown

SCHEMA = 1

# Below it, a judge hardly tells the labels apart, and the correction divides by almost nothing.
LEAST_YOUDEN = 0.1
MISFIT = (
    "no correction: the figure is beyond what the judge's errors on the labelled rows explain; it "
    "errs otherwise here: label some of these answers"
)
_PRIOR = 0.5  # of Jeffreys


@dataclass(frozen=True)
class Calibration:
    """A judge against labels that count as true.

    Attributes:
      labels: all that occur, sorted.
      counts: of rows [true label][label of the judge], in the order of `labels`.
      agreement: accuracy as `share`, kappa, and the number of rows without a verdict as `missing`.
      judge: name of the judge.
      source: where the labelled rows are from.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    agreement: Agreement
    judge: str = ""
    source: str = ""

    def correction(self, positive: Iterable[str]) -> "Correction":
        """For the share of rows whose true label is one of `positive`."""
        wanted = set(positive)
        chosen = np.array([label in wanted for label in self.labels], bool)
        counts = np.array(self.counts, int).reshape(len(self.labels), len(self.labels))
        return Correction(
            hits=int(counts[chosen][:, chosen].sum()),
            positives=int(counts[chosen].sum()),
            rejections=int(counts[~chosen][:, ~chosen].sum()),
            negatives=int(counts[~chosen].sum()),
            labels=tuple(sorted(wanted)),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"schema": SCHEMA} | asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Calibration":
        """Of what `to_dict` gives.

        Raises:
          UserError: it is no such value, or of a newer version.
        """
        try:
            if row["schema"] > SCHEMA:
                raise UserError("the calibration was written by a newer stair_jax: update this one")
            found = row["agreement"]
            return cls(
                labels=tuple(map(str, row["labels"])),
                counts=tuple(tuple(map(int, counts)) for counts in row["counts"]),
                agreement=Agreement(
                    int(found["n"]),
                    int(found["missing"]),
                    _estimate(found["share"]),
                    _estimate(found["kappa"]),
                ),
                judge=str(row["judge"]),
                source=str(row["source"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the calibration cannot be read ({type(error).__name__}: {error}): make it anew "
                "from the labelled file"
            ) from error

    def markdown(self) -> str:
        """The confusion matrix as a table, with accuracy and kappa below."""
        head = [f"{markdown(self.judge or 'judge')} says", *map(markdown, self.labels), "recall"]
        lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
        for index, label in enumerate(self.labels):
            row = self.counts[index]
            recall = f"{row[index] / sum(row):.3f}" if sum(row) else "-"
            lines.append([f"true: {markdown(label)}", *map(str, row), recall])
        text = [f"| {' | '.join(line)} |" for line in lines]
        source = f" of {markdown(self.source)}" if self.source else ""
        text += [
            "",
            f"{self.agreement.n} labelled rows{source}; {self.agreement.missing} without a "
            f"verdict. Accuracy {_shown(self.agreement.share)}, Cohen's kappa "
            f"{_shown(self.agreement.kappa)}.",
        ]
        return "\n".join(text) + "\n"


def calibrate(
    judge_labels: Sequence[str | None],
    true_labels: Sequence[str],
    clusters: Sequence[Hashable] | None = None,
    judge: str = "",
    source: str = "",
    num_samples: int = 2000,
    seed: int = 0,
) -> Calibration:
    """A judge against labels of humans on the same rows.

    Args:
      judge_labels: label of each row; None: the verdict is missing.
      true_labels: of humans.
      clusters: rows that belong together, e.g. answers to one prompt; None: each stands alone.
      judge: name of the judge.
      source: where the rows are from.
      num_samples: number of bootstrap samples, of the intervals.
      seed: for the resampling.

    Raises:
      ValueError: the numbers of labels differ.
    """
    labels = tuple(sorted({*true_labels, *(label for label in judge_labels if label is not None)}))
    return Calibration(
        labels=labels,
        counts=confusion(true_labels, judge_labels, labels),
        agreement=agreement(true_labels, judge_labels, clusters, num_samples, seed),
        judge=judge,
        source=source,
    )


@dataclass(frozen=True)
class Correction:
    """Takes a judge's error out of a share, after Rogan and Gladen.

    The share q that a judge finds is se p + (1 - sp)(1 - p) for the true share p, so that p is
    (q + sp - 1) / (se + sp - 1), with the judge's sensitivity se and specificity sp (Rogan and
    Gladen, American Journal of Epidemiology 107, 1978), clipped to [0, 1]. It holds for means and
    macro means of 0 and 1, as far as the judge errs on these rows as it does on the labelled ones.

    Attributes:
      hits: number of positive rows that the judge calls positive.
      positives: number of rows that are.
      rejections: number of negative rows that the judge calls negative.
      negatives: number of rows that are.
      labels: those that are positive, for messages.
    """

    hits: int
    positives: int
    rejections: int
    negatives: int
    labels: tuple[str, ...] = ()

    @property
    def sensitivity(self) -> float:
        """Share of the positive rows that the judge finds; NaN without any."""
        return self.hits / self.positives if self.positives else float("nan")

    @property
    def specificity(self) -> float:
        """Share of the negative rows that the judge finds; NaN without any."""
        return self.rejections / self.negatives if self.negatives else float("nan")

    @property
    def reason(self) -> str:
        """Why there is no correction; "": there is one."""
        if not self.positives or not self.negatives:
            labels = " or ".join(self.labels) or "positive"
            which = f"other than {labels}" if self.positives else labels
            return f"no correction: no labelled row is {which}"
        youden = self.sensitivity + self.specificity - 1
        if youden < LEAST_YOUDEN:
            return (
                f"no correction: the judge hardly tells the labels apart (sensitivity + "
                f"specificity - 1 = {youden:.2f}, below {LEAST_YOUDEN})"
            )
        return ""

    def value(self, share: float) -> float:
        """The corrected share; NaN where there is a `reason` against it."""
        if self.reason:
            return float("nan")
        return float(_rogan_gladen(np.array(share), self.sensitivity, self.specificity))

    def samples(self, shares: np.ndarray, seed: int = 0) -> np.ndarray:
        """Bootstrap samples of the share, corrected with as many samples of the judge's error.

        Sensitivity and specificity are drawn from Beta(right + 1/2, wrong + 1/2), the posterior
        under the prior of Jeffreys: resampled labels would take a judge without a mistake on 30
        rows for one that makes none.

        Args:
          shares: of the bootstrap over the judged cases [samples].
          seed: for the draws.
        """
        if self.reason:
            return np.full(shares.shape, np.nan)
        rng = np.random.default_rng(seed)
        wrong = self.positives - self.hits
        sensitivity = rng.beta(self.hits + _PRIOR, wrong + _PRIOR, shares.shape)
        wrong = self.negatives - self.rejections
        specificity = rng.beta(self.rejections + _PRIOR, wrong + _PRIOR, shares.shape)
        return _rogan_gladen(shares, sensitivity, specificity)


def is_clipped(samples: np.ndarray) -> bool:
    """Whether corrected samples are clipped to one bound all over the 95 % interval.

    An interval of no length would look like certainty, and says that the judge finds more positives
    than its sensitivity, or fewer than its false alarms, lets it.
    """
    low, high = np.percentile(samples, [2.5, 97.5])
    return bool(low == high and low in (0.0, 1.0))


def _rogan_gladen(share: Any, sensitivity: Any, specificity: Any) -> Any:
    # a drawn judge that is worse than chance tells nothing: the bound keeps the sign of the share
    youden = np.maximum(sensitivity + specificity - 1, 1e-9)
    return np.clip((share + specificity - 1) / youden, 0.0, 1.0)


def _estimate(row: Mapping[str, Any] | None) -> Estimate | None:
    return None if row is None else Estimate(row["value"], row["low"], row["high"])


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return "undefined"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
