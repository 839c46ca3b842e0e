"""An evaluation whose answers and verdicts are made by workers of a cluster.

The driver, which is the process of the run, has the cases and writes answers and verdicts. It
makes itself what needs no model here: answers and verdicts of endpoints, which one process alone
can keep to their caps, and verdicts by rule. An answer depends on its case, the models and the
settings alone, so that it is the same whichever worker makes it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stair_jax.cluster.dealer import Dealer
from stair_jax.decoding.item_tasks import Made, RunItems, TaskWorker
from stair_jax.decoding.task import Task
from stair_jax.evaluation.asking import Ask, AskedSet, AskTask
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.judges.settings import JudgeSpec
from stair_jax.evaluation.runner import Judged
from stair_jax.run.context import StageContext
from stair_jax.run.evaluation_judges import CheckpointJudge, find_checkpoint_judge
from stair_jax.run.workers import DealtStage, MakeStageWorker, hire, run_there
from stair_jax.stages.evaluate_targets import Answers, OpenedJudge, Targets

if TYPE_CHECKING:
    from stair_jax.stages.evaluate import Evaluate

_TARGET, _JUDGE = "target", "judge"  # names of the models of workers


@dataclass(frozen=True)
class DealtAsk:
    """A case as it is sent to a worker, which knows the sets without their cases.

    Attributes:
      method: by which it is answered.
      of: names of benchmark and attack.
      case: that is asked.
    """

    method: str
    of: tuple[str, str]
    case: Case


class TargetsOfWorkers(Targets):
    """Has workers load one target or judge after another, each of them on all workers."""

    def likelihoods(
        self, name: str, folder: Path, sets: Sequence[AskedSet], stack: ExitStack
    ) -> Answers:
        """See `Targets.likelihoods`."""
        return self._hire(name, folder, (), sets, stack)

    def answers(
        self,
        name: str,
        folder: Path | None,
        methods: Sequence[str],
        sets: Sequence[AskedSet],
        stack: ExitStack,
    ) -> Answers:
        """See `Targets.answers`; the endpoint is asked by this process."""
        if folder is None:
            return super().answers(name, folder, methods, sets, stack)
        return self._hire(name, folder, methods, sets, stack)

    def judge(self, spec: JudgeSpec, stack: ExitStack) -> OpenedJudge:
        """See `Targets.judge`; an endpoint and the rule are asked by this process."""
        if spec.kind in ("rule", "endpoint"):
            return super().judge(spec, stack)
        stage, context = self._stage, self._context
        judge = find_checkpoint_judge(spec, stage.grading, context.folder)
        seen = DealtStage.of(stage, context, {_JUDGE: judge.folder})
        dealer = stack.enter_context(hire(context, WorkerOfJudge(seen, judge)))
        return OpenedJudge(judge.judge, run_there(dealer, _size_of_judged))

    def _hire(
        self,
        name: str,
        folder: Path,
        methods: Sequence[str],
        sets: Sequence[AskedSet],
        stack: ExitStack,
    ) -> DealtAnswers:
        models = {_TARGET: folder}
        models |= self.models_beside(methods, [asked.attack for asked in sets])
        seen = DealtStage.of(self._stage, self._context, models)
        bare = tuple(replace(asked, cases=()) for asked in sets)
        make = WorkerOfTarget(seen, name, tuple(methods), bare)
        return DealtAnswers(stack.enter_context(hire(self._context, make)))


@dataclass(frozen=True)
class DealtAnswers:
    """A target whose answers are dealt out.

    Attributes:
      dealer: of its workers.
    """

    dealer: Dealer

    def answering(self, method: str) -> RunItems:
        """See `Answers.answering`."""

        def run(asks: Iterable[tuple[Hashable, Ask]]) -> Iterator[list[Made]]:
            there = run_there(self.dealer, _size_of_ask)
            # A worker may still be at a copy of a case by the method before.
            sent = (((method, key), DealtAsk(method, ask.key[:2], ask.case)) for key, ask in asks)
            for made in there(sent):
                yield [each._replace(key=each.key[1]) for each in made]

        return run


@dataclass(frozen=True)
class WorkerOfTarget(MakeStageWorker["Evaluate"]):
    """Makes a worker that answers as a target.

    Attributes:
      name: of the model.
      methods: by which it will answer; none: it is asked for log-likelihoods alone.
      sets: that it will be asked, without their cases.
    """

    name: str
    methods: tuple[str, ...]
    sets: tuple[AskedSet, ...]

    def load(self, stage: Evaluate, context: StageContext) -> TaskWorker:
        """Loads the model, and those that methods and attacks need beside it."""
        targets, folder = Targets(stage, context), self.seen.models[_TARGET]
        if self.methods:
            attacks = [asked.attack for asked in self.sets]
            opened = targets.open(self.name, folder, self.methods, attacks, ExitStack())
        else:
            opened = targets.open_likelihoods(self.name, folder)
        sets = {(each.benchmark.NAME, each.attack.name): each for each in self.sets}

        def make_task(sent: DealtAsk) -> AskTask:
            means = replace(opened.means, method=sent.method)
            return AskTask(Ask(sets[sent.of], sent.case), means)

        return TaskWorker(opened.driver, lambda shared: make_task, opened.slots)


@dataclass(frozen=True)
class WorkerOfJudge(MakeStageWorker["Evaluate"]):
    """Makes a worker that judges.

    Attributes:
      judge: without its weights.
    """

    judge: CheckpointJudge

    def load(self, stage: Evaluate, context: StageContext) -> TaskWorker:
        """Loads the model that judges."""
        found = replace(self.judge, folder=self.seen.models[_JUDGE])
        loaded = found.load(context.runtime, stage.dtype_used)

        def make_task(judged: Judged) -> Task[Verdict]:
            return loaded.judge.task(judged.question, judged.material, judged.key)

        return TaskWorker(loaded.driver(), lambda shared: make_task, loaded.slots)


def _size_of_ask(sent: DealtAsk) -> float:
    return float(len(sent.case.prompt))


def _size_of_judged(judged: Judged) -> float:
    return float(len(judged.material.prompt) + len(judged.material.answer))
