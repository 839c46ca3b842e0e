"""Label log-probabilities as a verdict."""

import math
from collections.abc import Mapping, Sequence

from stair_jax.evaluation.judges.wordings import Part

# Less probability than this for all labels together: the judge was about to write something else.
LEAST_MASS = 0.25


def chances_of(
    part: Part, logps: Sequence[float], least_mass: float = LEAST_MASS
) -> dict[str, float] | None:
    """Probabilities of the labels, which together are 1.

    Args:
      part: whose labels they are.
      logps: log-probability of `part.scored`, in their order.
      least_mass: the probability that all of them must have together.

    Returns:
      None if there are too few numbers, one is NaN or above 0 by more than rounding, or the labels
      have less than `least_mass`.
    """
    if len(logps) != len(part.labels) or not all(logp <= 1e-3 for logp in logps):
        return None
    weights = [math.exp(logp) for logp in logps]
    total = sum(weights)
    if not total > 0 or total < least_mass:
        return None
    return {label: weight / total for label, weight in zip(part.labels, weights, strict=True)}


def chances_of_tokens(part: Part, alternatives: Mapping[str, float]) -> dict[str, float] | None:
    """The same from the most probable first tokens of a reply, as an endpoint tells them.

    A token counts for a label if it begins the first spelling of this label and of no other one, in
    large or small letters.
    """
    weights = dict.fromkeys(part.labels, 0.0)
    for token, logp in alternatives.items():
        begun = token.strip().lower()
        labels = {
            label
            for label, spelling in zip(part.labels, part.scored, strict=True)
            if begun and spelling.lower().startswith(begun)
        }
        if len(labels) == 1:
            weights[labels.pop()] += math.exp(min(logp, 0.0))
    total = sum(weights.values())
    if total < LEAST_MASS:
        return None
    return {label: weight / total for label, weight in weights.items()}


def likeliest_spelling(part: Part, chances: Mapping[str, float]) -> str:
    """How the label with the largest probability is written; the first of several."""
    best = max(part.labels, key=lambda label: chances[label])
    return part.scored[part.labels.index(best)]
