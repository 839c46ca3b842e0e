"""An evaluation whose answers and verdicts are made by workers of a cluster.

The driver, which is the process of the run, has the cases and writes answers and verdicts. It
makes itself what needs no model here: answers and verdicts of endpoints, which one process alone
can keep to their caps, and verdicts by rule. An answer depends on its case, the models and the
settings alone, so that it is the same whichever worker makes it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

from stair_jax.cluster.dealer import Dealer
from stair_jax.decoding.item_tasks import Made, RunItems, TaskWorker
from stair_jax.decoding.task import Task
from stair_jax.evaluation.asking import Ask, AskedSet, AskTask
from stair_jax.evaluation.attacks.attack import Attack
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

# Models of workers that no field of the stage names.
_TARGET, _JUDGE = "the model that answers", "the model that judges"


@dataclass(frozen=True)
class DealtAsk:
    """An `Ask` as it is sent to a worker, which has the attacks.

    Attributes:
      method: by which it is answered.
      benchmark: its name.
      attack: its name.
      case: that is asked.
      kind: of the prompt.
    """

    method: str
    benchmark: str
    attack: str
    case: Case
    kind: str


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
        attacks = {(asked.benchmark.NAME, asked.attack.name): asked.attack for asked in sets}
        models = {_TARGET: folder} | self.models_beside(methods, list(attacks.values()))
        seen = DealtStage.of(self._stage, self._context, models)
        make = WorkerOfTarget(seen, name, tuple(methods), attacks)
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

        def sent(key: Hashable, ask: Ask) -> tuple[Hashable, DealtAsk]:
            # A worker may still be at a copy of a case by the method before.
            as_sent = DealtAsk(method, ask.benchmark, ask.attack.name, ask.case, ask.kind)
            return (method, key), as_sent

        def run(asks: Iterable[tuple[Hashable, Ask]]) -> Iterator[list[Made]]:
            for made in run_there(self.dealer, _size_of_ask)(starmap(sent, asks)):
                yield [each._replace(key=each.key[1]) for each in made]

        return run


@dataclass(frozen=True)
class WorkerOfTarget(MakeStageWorker["Evaluate"]):
    """Makes a worker that answers as a target.

    Attributes:
      name: of the model.
      methods: by which it will answer; none: it is asked for log-likelihoods alone.
      attacks: on it, by the names of benchmark and attack.
    """

    name: str
    methods: tuple[str, ...]
    attacks: Mapping[tuple[str, str], Attack]

    def load(self, stage: Evaluate, context: StageContext) -> TaskWorker:
        """Loads the model, and those that methods and attacks need beside it."""
        targets, folder = Targets(stage, context), self.seen.models[_TARGET]
        if self.methods:
            attacks = list(self.attacks.values())
            opened = targets.open(self.name, folder, self.methods, attacks, ExitStack())
        else:
            opened = targets.open_likelihoods(self.name, folder)

        def make_task(sent: DealtAsk) -> AskTask:
            attack = self.attacks[sent.benchmark, sent.attack]
            ask = Ask(sent.benchmark, attack, sent.case, sent.kind)
            return AskTask(ask, replace(opened.means, method=sent.method))

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
