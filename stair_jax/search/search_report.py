"""Totals of a search: trees, skipped prompts, token counts, engine statistics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from stair_jax.decoding.requests import EngineStats, total
from stair_jax.search.tree_records import TreeRecord


@dataclass
class SearchReport:
    """Totals of one search; of a resumed one, without the trees that were finished before.

    Attributes:
      trees: number of finished trees.
      iterations: of all trees, those that are not finished included; the visits after the budget
        are none.
      judgements: answers that were judged, likewise.
      skipped: (prompt id, reason), in the order of the prompts.
      counts: events, summed over the trees (`TreeRecord.counts`).
      generated_tokens: sampled tokens, summed over the trees.
      prefilled_tokens: prefilled tokens, summed over the trees; see `TreeRecord`.
      rounds: rounds of the jitted search.
      seconds: wall time.
      compile_seconds: of these, spent on compiling; no rate counts them.
      engine: statistics of the engine over the search.
    """

    trees: int = 0
    iterations: int = 0
    judgements: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    engine: EngineStats = field(default_factory=EngineStats)

    def add(self, record: TreeRecord) -> None:
        """Counts a finished tree, and what is summed over the trees."""
        self.trees += 1
        self.counts.update(record.counts)
        self.generated_tokens += record.generated_tokens
        self.prefilled_tokens += record.prefilled_tokens

    def shown(self) -> dict[str, Any]:
        """Rates and failures for a progress line."""
        seconds = max(self.seconds - self.compile_seconds, 1e-9)
        return {
            "judgements": self.judgements,
            "judgements/s": round(self.judgements / seconds, 1),
            "trees/h": round(3600 * self.trees / seconds),
            "tokens/s": round(self.engine.generated / seconds),
            "cached": round(self.engine.hit_rate, 3),
            "slots": round(self.engine.occupancy, 3),
            "unreadable": self.counts["unreadable"],
            "missing": self.counts["missing"],
            "preempted": self.engine.preempted,
        }


def tree_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one tree (`TreeRecord.to_dict`); none of them depends on the clock."""
    root, counts = record["nodes"][0], record["counts"]
    return {
        "value": float("nan") if root["value"] is None else root["value"],
        "nodes": len(record["nodes"]),
        "depth": max(node["depth"] for node in record["nodes"]),
        "missing": root["missing"],
        "malformed": counts.get("malformed", 0),
        "unreadable": counts.get("unreadable", 0),
        "generated_tokens": record["generated_tokens"],
    }


def engine_metrics(report: SearchReport, stats: EngineStats, seconds: float) -> dict[str, float]:
    """Rates since the start of a process, and counts of its engine.

    They depend on the clock, or on what was searched beside a tree.

    Args:
      report: what was searched since then.
      stats: of the engine since then.
      seconds: since then, without those of compilation.
    """
    return {
        "trees_per_hour": 3600 * report.trees / seconds,
        "iterations_per_second": report.iterations / seconds,
        "judgements_per_second": report.judgements / seconds,
        "tokens_per_second": stats.generated / seconds,
        "hit_rate": stats.hit_rate,
        "occupancy": stats.occupancy,
        "evicted": stats.evicted,
        "preempted": stats.preempted,
    }


def merge(reports: Sequence[SearchReport]) -> SearchReport:
    """The report of several processes that searched in parallel: sums, and the longest time."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    return SearchReport(
        trees=sum(report.trees for report in reports),
        iterations=sum(report.iterations for report in reports),
        judgements=sum(report.judgements for report in reports),
        skipped=[pair for report in reports for pair in report.skipped],
        counts=counts,
        generated_tokens=sum(report.generated_tokens for report in reports),
        prefilled_tokens=sum(report.prefilled_tokens for report in reports),
        rounds=sum(report.rounds for report in reports),
        seconds=max(report.seconds for report in reports),
        compile_seconds=max(report.compile_seconds for report in reports),
        engine=total(report.engine for report in reports),
    )


def since(before: EngineStats, now: EngineStats) -> EngineStats:
    """Difference of two readings of an engine's counters."""
    names = [counted.name for counted in fields(EngineStats)]
    return EngineStats(**{name: getattr(now, name) - getattr(before, name) for name in names})
