"""A search whose trees grow on workers of a cluster.

The driver, which is the process of the run, has the prompts and writes the trees, the metrics and
the probe of the judge. A worker has the model and an engine, and neither reads nor writes anything
of the folder of the stage. A tree depends on its prompt, the model and the settings alone, so that
it is the same whichever worker grows it, and however often it was begun.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stair_jax.cluster.address import read_address
from stair_jax.cluster.carried import AbsentFolders
from stair_jax.cluster.dealer import Dealer
from stair_jax.cluster.ray_pool import RayPool
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics, Progress
from stair_jax.run.compilation_cache import cache_folder, use_compilation_cache
from stair_jax.run.context import StageContext
from stair_jax.run.engines import load_engine
from stair_jax.search.fed_queue import FedQueue, Outcome
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.probe import ProbeResult
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.prompt_queue import PromptQueue, QueuedPrompt
from stair_jax.search.runner import make_queue
from stair_jax.search.search_report import SearchReport, merge
from stair_jax.search.search_task import SearchOptions, SearchTask
from stair_jax.search.tree_samples import TreeSamples
from stair_jax.search.tree_worker import PROBE, Probe, TreeWorker
from stair_jax.stages.search_parts import RecordShards
from stair_jax.stages.search_probe import probe_by
from stair_jax.stages.search_writer import TreeWriter
from stair_jax.storage import fingerprint_folder
from stair_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from stair_jax.stages.search import Search

_MODELS = ("model", "judge_model", "judge_prm")  # fields that name stages with models


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
    hf, everywhere = context.input("model") / "hf", _everywhere(context)
    models = tuple(map(fingerprint_folder, _models(everywhere)))
    queue = make_queue(parts.prompts, Tokenizer.load(hf), stage.search_settings, parts.done)
    make = WorkerOfSearch(stage, everywhere, models, cache_folder())
    address = read_address(context.runtime.cluster)
    progress, totals = stage.progress(context, parts, False), _Totals()
    with (
        closing(progress),
        parts.open_metrics() as metrics,
        RayPool(address, make) as pool,
    ):
        dealer = Dealer(pool, totals.take)

        def ask(cases: list[ProbeCase]) -> ProbeResult:
            found: list[ProbeResult] = []
            probe = WorkQueue([Probe(cases)], lambda item: PROBE)
            dealer.run(probe, lambda worker, id, result: found.append(result))
            return found[0]

        calibrate = probe_by(ask, context.folder, stage.judge, context.seed, models[0])
        intake = _Intake(queue, parts, metrics, progress, totals, stage.num_iterations)
        work = WorkQueue(_prompts(queue), _id, lambda queued: float(len(queued.tokens)))
        dealer.run(work, intake.take, calibrate)
    totals.report.skipped = queue.skipped
    return totals.report


@dataclass(frozen=True)
class WorkerOfSearch:
    """Makes a worker of a search, in the process of the worker.

    Attributes:
      stage: the search.
      context: of the stage.
      models: fingerprints of the folders of models, that of the policy first.
      programs: folder of compiled programs; None: none are kept.
    """

    stage: Search
    context: StageContext
    models: tuple[str, ...]
    programs: Path | None

    def __call__(self) -> TreeWorker:
        """Loads the model and what judges."""
        stage, context = self.stage, self.context
        hf = context.input("model") / "hf"
        self._check()
        if self.programs is not None:
            use_compilation_cache(self.programs)
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
                model=self.models[0],
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
        return TreeWorker(Driver(engine, judges.services), judge, context.seed, make_task)

    def moved(self, places: Mapping[Path, Path]) -> WorkerOfSearch:
        """The same with models in other places."""
        stages = {hf.parent: place.parent for hf, place in places.items()}
        inputs = {
            name: stages.get(folder, folder) if isinstance(folder, Path) else folder
            for name, folder in self.context.inputs.items()
        }
        return replace(self, context=replace(self.context, inputs=inputs))

    def _check(self) -> None:
        """Checks that the worker sees the very models that the driver sees.

        Raises:
          AbsentFolders: it does not see all of them.
          UserError: it sees another one.
        """
        models = _models(self.context)
        if absent := [hf for hf in models if not hf.is_dir()]:
            raise AbsentFolders(absent)
        for hf, seen_by_driver in zip(models, self.models, strict=True):
            if fingerprint_folder(hf) != seen_by_driver:
                raise UserError(f"{hf} holds another model than on the machine of the driver")


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


def _models(context: StageContext) -> list[Path]:
    """The folders of models that a worker reads, that of the policy first."""
    folders = [context.inputs[name] for name in _MODELS if name in context.inputs]
    return list(dict.fromkeys(each / "hf" for each in folders if isinstance(each, Path)))


def _everywhere(context: StageContext) -> StageContext:
    """The same with folders that do not depend on where a process was started."""
    inputs = {
        name: folders.resolve()
        if isinstance(folders, Path)
        else [each.resolve() for each in folders]
        for name, folders in context.inputs.items()
    }
    return replace(context, folder=context.folder.resolve(), inputs=inputs)
