"""Answers that workers of a cluster write and judge.

The driver, which is the process of the run, has the prompts and writes what becomes of them, and
the probe of the judge. What becomes of a prompt depends on it, the models and the settings alone,
so that it is the same whichever worker answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stair_jax.data.records import SynthesisPrompt
from stair_jax.data.row_file import RowFile
from stair_jax.decoding.item_tasks import MakeTask, TaskWorker
from stair_jax.decoding.requests import EngineStats, total
from stair_jax.evaluation.shards import Shards
from stair_jax.run.context import StageContext
from stair_jax.run.workers import DealtStage, MakeStageWorker, hire, run_there
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probing_worker import ProbingWorker, ask_workers
from stair_jax.stages.search_probe import probe_by
from stair_jax.stages.synthesize_log import AnswerLog
from stair_jax.stages.synthesize_opening import load
from stair_jax.synthesis.policies import policies_of
from stair_jax.synthesis.prompt_task import PromptTask

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize


def answer_on_cluster(
    stage: Synthesize, context: StageContext, prompts: RowFile[SynthesisPrompt], shards: Shards
) -> None:
    """Answers the prompts that have no answers yet on the workers of `runtime.cluster`.

    Args:
      stage: its settings; the model writes.
      context: of the stage.
      prompts: all of them.
      shards: of their answers.

    Raises:
      UserError: the work cannot be dealt out, or a worker says what is wrong.
    """
    stage.check_cluster()
    models = {"model": context.input("model") / "hf"} | stage.judging_folders(context)
    seen = DealtStage.of(stage, context, models)
    make, stats = WorkerOfSynthesis(seen, policies_of(stage)), _Stats()
    with hire(context, make, stats.take) as dealer:
        calibrate = probe_by(
            ask_workers(dealer),
            context.folder,
            stage.judge,
            context.seed,
            seen.fingerprints["model"],
            "synthesize",
        )
        run = run_there(dealer, _size, calibrate)
        left = ((key, prompts[prompts.ids.places(key)[0]]) for key in shards.left())
        with AnswerLog(context, stage, prompts, shards, stats.whole) as log:
            for made in run(left):
                log.write([each.result for each in made])


@dataclass(frozen=True)
class WorkerOfSynthesis(MakeStageWorker["Synthesize"]):
    """Makes a worker that answers prompts.

    Attributes:
      policies: texts by category.
    """

    policies: Mapping[str, str]

    def load(self, stage: Synthesize, context: StageContext) -> ProbingWorker:
        """Loads the model and what judges."""
        loaded = load(context, stage, self.policies, ExitStack())

        def begin(calibrate: Calibrator | None) -> MakeTask:
            return partial(PromptTask, loaded.means(calibrate))

        worker = TaskWorker(loaded.driver, begin, loaded.slots, loaded.engine.stats)
        ask = partial(run_probe, loaded.judge(), loaded.driver, seed=context.seed)
        return ProbingWorker(worker, ask)


class _Stats:
    """The counters of the engines of all workers, also of those that are lost, as one."""

    def __init__(self) -> None:
        self._of: dict[str, EngineStats] = {}
        self.whole = EngineStats()

    def take(self, worker: str, said: EngineStats) -> None:
        self._of[worker] = said
        vars(self.whole).update(vars(total(self._of.values())))  # others hold this very object


def _size(prompt: SynthesisPrompt) -> float:
    return float(len(prompt.prompt))
