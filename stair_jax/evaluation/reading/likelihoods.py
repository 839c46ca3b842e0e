"""What log-likelihoods of choices say: which is preferred, and how much probability they have."""

import math
from collections.abc import Collection, Sequence


def prefers_first(likelihoods: Sequence[float], lengths: Sequence[int]) -> float | None:
    """Whether the first of two or more choices is the likeliest.

    Args:
      likelihoods: of the choices, in nats; -inf: impossible.
      lengths: each likelihood is divided by; ones: whole texts are compared.

    Returns:
      1 or 0, .5 for a tie of the first with the likeliest of the others; None: likelihoods are
      missing or are no numbers.
    """
    if not is_complete(likelihoods, len(lengths)):
        return None
    first, *others = (
        value / max(length, 1) for value, length in zip(likelihoods, lengths, strict=True)
    )
    best = max(others)
    return 0.5 if first == best else float(first > best)


def share_of(likelihoods: Sequence[float], members: Collection[int], count: int) -> float | None:
    """The share of some choices in the probability of all.

    Args:
      likelihoods: of the choices, in nats.
      members: indices of the choices that count.
      count: number of choices.

    Returns:
      a number from 0 to 1; None: likelihoods are missing, or all choices are impossible.
    """
    if not is_complete(likelihoods, count) or max(likelihoods) == -math.inf:
        return None
    highest = max(likelihoods)  # so that no exponential is 0 for all, nor above 1
    weights = [math.exp(value - highest) for value in likelihoods]
    return sum(weights[index] for index in members) / sum(weights)


def is_complete(likelihoods: Sequence[float], count: int) -> bool:
    """Whether there is a likelihood of each choice, a number below infinity."""
    return len(likelihoods) == count and all(value < math.inf for value in likelihoods)
