"""What a search did."""

from collections import Counter
from collections.abc import Sequence
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


def merge(reports: Sequence[SearchReport]) -> SearchReport:
    """What several processes did, each in a part of the same time."""
    names = [counted.name for counted in fields(EngineStats)]
    engine = {name: sum(getattr(report.engine, name) for report in reports) for name in names}
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    return SearchReport(
        trees=sum(report.trees for report in reports),
        skipped=[pair for report in reports for pair in report.skipped],
        counts=counts,
        generated_tokens=sum(report.generated_tokens for report in reports),
        prefilled_tokens=sum(report.prefilled_tokens for report in reports),
        rounds=sum(report.rounds for report in reports),
        seconds=max(report.seconds for report in reports),
        engine=EngineStats(**engine),
    )


def since(before: EngineStats, now: EngineStats) -> EngineStats:
    """What was counted between two looks at an engine."""
    names = [counted.name for counted in fields(EngineStats)]
    return EngineStats(**{name: getattr(now, name) - getattr(before, name) for name in names})
