"""What answers took by the clock: never a part of answers or tables, whose bytes do not know it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Speed:
    """Answers that were made in one go, and how long that took.

    Attributes:
      cases: number of cases.
      answers: number of answers to them, several a case where an attack tries several times.
      generated_tokens: sampled for them by the target, those of a search included.
      seconds: wall time, with the compilation of what had not been compiled before.
      waited: sum over the cases of the seconds from the start of a case's task to its end. All
        cases that are in flight have started, those that wait for a slot of the engine too.
    """

    cases: int = 0
    answers: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def latency(self) -> float:
        """Seconds from the start of a case's task to its end, in the mean."""
        return self.waited / max(self.cases, 1)

    @property
    def answers_per_second(self) -> float:
        """Answers by wall time."""
        return self.answers / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by wall time."""
        return self.generated_tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for a file."""
        return {
            "cases": self.cases,
            "answers": self.answers,
            "generated_tokens": self.generated_tokens,
            "seconds": round(self.seconds, 3),
            "latency": round(self.latency, 3),
            "answers_per_second": round(self.answers_per_second, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }

    def __str__(self) -> str:
        """One line."""
        line = (
            f"{self.cases} cases in {self.seconds:.1f} s, {self.answers_per_second:.1f} answers/s"
        )
        if self.generated_tokens:
            line += f", {self.tokens_per_second:.0f} generated tokens/s"
        return f"{line}, {self.latency:.1f} s a prompt"

    def values(self) -> dict[str, Any]:
        """As JSON values, to be read again by `Speed(**values)`."""
        return asdict(self)


def side_by_side(speeds: Sequence[Speed]) -> Speed:
    """The speed of several processes that share the cases."""
    return Speed(
        cases=sum(speed.cases for speed in speeds),
        answers=sum(speed.answers for speed in speeds),
        generated_tokens=sum(speed.generated_tokens for speed in speeds),
        seconds=max((speed.seconds for speed in speeds), default=0.0),
        waited=sum(speed.waited for speed in speeds),
    )
