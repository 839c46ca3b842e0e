"""What a search did."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from stair_jax.decoding.requests import EngineStats


@dataclass
class SearchReport:
    """What a search did, this time.

    Attributes:
      trees: finished.
      skipped: (prompt id, reason), in the order of the prompts.
      counts: summed over the trees.
      generated_tokens: summed over the trees.
      prefilled_tokens: the same, see `TreeRecord`.
      rounds: of the kernel.
      seconds: of the search.
      engine: what the engine counted meanwhile.
    """

    trees: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0
    engine: EngineStats = field(default_factory=EngineStats)

    def shown(self) -> dict[str, Any]:
        """Rates and failures, for a line of progress."""
        seconds = max(self.seconds, 1e-9)
        return {
            "trees/h": round(3600 * self.trees / seconds),
            "tokens/s": round(self.engine.generated / seconds),
            "cached": round(self.engine.hit_rate, 3),
            "slots": round(self.engine.occupancy, 3),
            "unreadable": self.counts["unreadable"],
            "missing": self.counts["missing"],
            "preempted": self.engine.preempted,
        }


def since(before: EngineStats, now: EngineStats) -> EngineStats:
    """What was counted between two looks at an engine."""
    names = [counted.name for counted in fields(EngineStats)]
    return EngineStats(**{name: getattr(now, name) - getattr(before, name) for name in names})
