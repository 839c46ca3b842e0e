"""What answers cost: tokens, steps, and seconds where they were measured."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stair_jax.evaluation.case import Answer


@dataclass(frozen=True)
class Cost:
    """Cost of the answers of a model and method.

    Attributes:
      answers: number of answers that there are, missing ones not counted.
      tokens: of an answer, in the mean; None without answers.
      generated_tokens: sampled for an answer, those of a search included, in the mean; None: not
        known, as where an endpoint does not say.
      steps: of an answer, in the mean.
      attack_tokens: sampled by the attacker and its judge for a case, in the mean; 0 without one.
      seconds: wall time of all answers; None: not measured.
      latency: seconds from a prompt to its answer, in the mean; None: not measured.
    """

    answers: int
    tokens: float | None = None
    generated_tokens: float | None = None
    steps: float | None = None
    attack_tokens: float | None = None
    seconds: float | None = None
    latency: float | None = None


def cost(
    answers: Sequence[Answer],
    seconds: float | None = None,
    latencies: Sequence[float] = (),
) -> Cost:
    """The cost of answers.

    Args:
      answers: of one model and method.
      seconds: wall time of all of them, where it is known.
      latencies: seconds from each prompt to its answer, of those that are known.
    """
    given = [answer for answer in answers if not answer.is_missing]

    def mean_of(number: Callable[[Answer], float]) -> float | None:
        return _mean([number(answer) for answer in given])

    return Cost(
        answers=len(given),
        tokens=mean_of(lambda answer: answer.tokens) or None,
        generated_tokens=mean_of(lambda answer: answer.generated_tokens) or None,
        steps=mean_of(lambda answer: answer.steps),
        attack_tokens=_mean(_attack_tokens(given)),
        seconds=seconds,
        latency=_mean(list(latencies)),
    )


def _attack_tokens(answers: Iterable[Answer]) -> list[float]:
    """Of each case under each attack: they are counted up to each answer, so the largest counts."""
    largest: dict[tuple[str, str, str], float] = {}
    for answer in answers:
        key = (answer.benchmark, answer.attack, answer.case)
        largest[key] = max(largest.get(key, 0.0), float(answer.attack_tokens))
    return list(largest.values())


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
