"""What a search writes of its trees while it goes on, and what it says at its end."""

import time
from collections.abc import Sequence

from stair_jax.decoding.requests import EngineStats
from stair_jax.monitoring import Metrics, say
from stair_jax.parallel.compile_clock import compile_seconds
from stair_jax.record_log import RecordLog
from stair_jax.run.context import StageContext
from stair_jax.samples import Sample
from stair_jax.search.search_report import SearchReport, engine_metrics, tree_metrics
from stair_jax.search.tree_records import TreeRecord
from stair_jax.search.tree_samples import TreeSamples
from stair_jax.storage import write_json


class TreeWriter:
    """Puts finished trees on the disk, and a line of metrics beside each.

    The rates of a line, and the counts of the engine, are those since this start of the stage.
    """

    def __init__(
        self,
        log: RecordLog,
        metrics: Metrics,
        done: int,
        stats: EngineStats,
        report: SearchReport,
    ):
        """Nothing is written yet.

        Args:
          log: of the trees.
          metrics: of the stage.
          done: trees that were finished before.
          stats: of the engine since then; changes while the search goes on, as the next one.
          report: of the search since then.
        """
        self._log, self._metrics, self._stats, self._report = log, metrics, stats, report
        self._done = done
        self._start, self._compiled = time.monotonic(), compile_seconds()

    def samples(self, every: int) -> TreeSamples | None:
        """Writes samples of trees; 0: of none."""
        return TreeSamples(every, self.write_samples) if every else None

    def write_samples(self, samples: Sequence[Sample]) -> None:
        """Writes samples of the tree that is written next.

        Before the tree: what a search that was killed has of a tree that is lost is dropped.
        """
        self._metrics.write_samples(self._done + 1, samples)

    def write(self, record: TreeRecord) -> None:
        """Writes a tree, and a line of metrics."""
        row = record.to_dict()
        self._log.append(row)
        self._done += 1
        seconds = time.monotonic() - self._start - (compile_seconds() - self._compiled)
        rates = engine_metrics(self._report, self._stats, max(seconds, 1e-9))
        self._metrics.write(
            self._done, tree_metrics(row), clock={"seconds": record.seconds} | rates
        )


def say_report(context: StageContext, report: SearchReport) -> None:
    """Writes down and says which prompts were left out, and what the trees came to."""
    write_json(
        context.folder / "skipped.json",
        [{"id": id, "reason": reason} for id, reason in report.skipped],
    )
    for id, reason in report.skipped[:5]:
        say(f"{context.name}: prompt {id} left out: {reason}")
    if len(report.skipped) > 5:
        say(f"{context.name}: {len(report.skipped)} prompts left out in all (skipped.json)")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(report.counts.items()))
    say(f"{context.name}: {report.trees} trees, {report.generated_tokens} tokens; {counts}")
    engine = report.engine
    say(
        f"{context.name}: {engine.hit_rate:.1%} of the prompts' tokens were in the cache, "
        f"{engine.occupancy:.1%} of the slots busy; {engine.evicted} sequences evicted, "
        f"{engine.preempted} requests put back"
    )
