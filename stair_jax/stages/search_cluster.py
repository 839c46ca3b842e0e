"""A search whose trees grow on workers of a cluster.

The driver, which is the process of the run, has the prompts and writes the trees, the metrics and
the probe of the judge. A worker has the model and an engine, and neither reads nor writes anything
of the folder of the stage. A tree depends on its prompt, the model and the settings alone, so that
it is the same whichever worker grows it, and however often it was begun.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.decoding.driver import Driver
from stair_jax.monitoring import Metrics, Progress
from stair_jax.run.context import StageContext
from stair_jax.run.engines import load_engine
from stair_jax.run.workers import DealtStage, MakeStageWorker, hire
from stair_jax.search.fed_queue import FedQueue, Outcome
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probing_worker import ProbingWorker, ask_workers
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.prompt_queue import PromptQueue, QueuedPrompt
from stair_jax.search.runner import make_queue
from stair_jax.search.search_report import SearchReport, merge
from stair_jax.search.search_task import SearchOptions, SearchTask
from stair_jax.search.tree_samples import TreeSamples
from stair_jax.search.tree_worker import TreeWorker
from stair_jax.stages.search_parts import RecordShards
from stair_jax.stages.search_probe import probe_by
from stair_jax.stages.search_writer import TreeWriter
from stair_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from stair_jax.stages.search import Search


def search_on_cluster(stage: Search, context: StageContext, parts: RecordShards) -> SearchReport:
    """Searches the prompts that have no tree yet on the workers of `runtime.cluster`.

    Args:
      stage: the search.
      context: of the stage.
      parts: its records.

    Raises:
      UserError: the search cannot be dealt out, or a worker says what is wrong.
    """
    stage.check_cluster()
    hf = context.input("model") / "hf"
    seen = DealtStage.of(stage, context, {"model": hf} | stage.judging_folders(context))
    queue = make_queue(parts.prompts, Tokenizer.load(hf), stage.search_settings, parts.done)
    progress, totals = stage.progress(context, parts, False), _Totals()
    with (
        closing(progress),
        parts.open_metrics() as metrics,
        hire(context, WorkerOfSearch(seen), totals.take) as dealer,
    ):
        ask, policy = ask_workers(dealer), seen.fingerprints["model"]
        calibrate = probe_by(ask, context.folder, stage.judge, context.seed, policy)
        intake = _Intake(queue, parts, metrics, progress, totals, stage.num_iterations)
        work = WorkQueue(_prompts(queue), _id, lambda queued: float(len(queued.tokens)))
        for found in dealer.deal(work, calibrate):
            for dealt in found:
                intake.take(*dealt)
    totals.report.skipped = queue.skipped
    return totals.report


class WorkerOfSearch(MakeStageWorker["Search"]):
    """Makes a worker that grows trees."""

    def load(self, stage: Search, context: StageContext) -> ProbingWorker:
        """Loads the model and what judges."""
        hf = context.input("model") / "hf"
        judges = stage.load_judges(context, hf, stage.engine)
        engine, tokenizer, runtime = load_engine(
            hf, judges.engine, context.runtime, judges.beside, judges.adapters
        )

        def make_task(queue: FedQueue, calibrate: Calibrator | None) -> SearchTask:
            every = stage.samples_every
            options = SearchOptions(
                reward=stage.reward,
                trees_in_flight=runtime.trees_in_flight,
                device=runtime.tree_device,
                model=self.seen.fingerprints["model"],
                fingerprint=context.fingerprint,
                samples=TreeSamples(every, queue.add_samples) if every else None,
                services=judges.services,
                sources=judges.sources,
                calibrate=calibrate,
                watch=JudgeWatch(stage.judge.min_readable) if stage.judge.probe else None,
            )
            settings = stage.search_settings
            return SearchTask(queue, engine, tokenizer, settings, context.seed, None, options)

        judge = Judge(tokenizer, stage.judge, judges.sources)
        driver = Driver(engine, judges.services)
        ask = partial(run_probe, judge, driver, seed=context.seed)
        return ProbingWorker(TreeWorker(driver, make_task), ask)


class _Totals:
    """The reports of all workers as one, also of those that are lost.

    Trees count when they are written: some are grown twice, or are lost with their worker.
    """

    def __init__(self) -> None:
        self._of: dict[str, SearchReport] = {}
        self._start: float | None = None  # of the first search
        self.report = SearchReport()

    def take(self, worker: str, said: SearchReport) -> None:
        now, report = time.monotonic(), self.report
        if self._start is None:
            self._start = now - said.seconds
        self._of[worker] = said
        whole = merge(list(self._of.values()))
        report.iterations, report.judgements = whole.iterations, whole.judgements
        report.rounds, report.compile_seconds = whole.rounds, whole.compile_seconds
        report.seconds = now - self._start  # which no single worker may have worked
        vars(report.engine).update(vars(whole.engine))  # others hold this very object


@dataclass
class _Intake:
    """Takes what became of prompts, and writes it."""

    queue: PromptQueue
    parts: RecordShards
    metrics: Metrics
    progress: Progress
    totals: _Totals
    budget: int

    def __post_init__(self) -> None:
        report = self.totals.report
        log, done = self.parts.log, len(self.parts.done)
        self._writer = TreeWriter(log, self.metrics, done, report.engine, report)
        self._done, self._new = done, 0

    def take(self, worker: str, id: Hashable, outcome: Outcome) -> None:
        """Writes a tree, or why there is none."""
        if outcome.tree is None:
            self.queue.skip_id(outcome.place, str(id), outcome.skipped)
            return
        self.totals.report.add(outcome.tree)
        if outcome.samples:
            self._writer.write_samples(outcome.samples)
        self._writer.write(replace(outcome.tree, worker=worker))
        self._new += 1
        shown = self.totals.report.shown()
        self.progress.update(self._done + self._new, done_parts=self._new * self.budget, **shown)


def _prompts(queue: PromptQueue) -> Iterator[QueuedPrompt]:
    while (queued := queue.take()) is not None:
        yield queued


def _id(queued: QueuedPrompt) -> Hashable:
    return queued.prompt.id
