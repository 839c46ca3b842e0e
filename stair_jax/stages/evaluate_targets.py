"""The models that the stage `evaluate` asks, with all that their methods and attacks need."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax

from stair_jax.decoding.driver import Driver
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.item_tasks import RunItems
from stair_jax.decoding.task import Service
from stair_jax.endpoints.service import EndpointService
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks.attack import Attack, Means
from stair_jax.evaluation.attacks.gcg import Gcg, hold_room
from stair_jax.evaluation.endpoint_target import EndpointTarget
from stair_jax.evaluation.judges.judge import Judge
from stair_jax.evaluation.judges.settings import JudgeSpec
from stair_jax.evaluation.local_target import ChatEncoder, LocalTarget
from stair_jax.evaluation.runner import answering, judging
from stair_jax.evaluation.target import Target, Weights
from stair_jax.inference.answers import Answering
from stair_jax.inference.likelihood import LikelihoodScorer, LikelihoodService
from stair_jax.inference.methods import is_search, parse_method
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.inference.scoring import Scorer
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.run.engines import lay_out_engine, lay_out_judge, plan_laid_out, start_engine
from stair_jax.run.evaluation_judges import load_judge
from stair_jax.run.model_folders import find_model
from stair_jax.search.judging.judges import Judge as SearchJudge
from stair_jax.stages.judging_stage import Judges
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import load_huggingface

if TYPE_CHECKING:
    from stair_jax.stages.evaluate import Evaluate

ATTACKER_SERVICE = "attacker"
_LEDGER = "answers_replies.jsonl.gz"


@dataclass(frozen=True)
class Opened:
    """A target that can be asked.

    Attributes:
      means: of the attacks, with the target.
      driver: that serves it.
      slots: of its engine; 0: it has none.
    """

    means: Means
    driver: Driver
    slots: int = 0

    def answering(self, method: str) -> RunItems:
        """See `Answers.answering`."""
        return answering(self.driver, replace(self.means, method=method))


class Answers(Protocol):
    """A target that answers, here or elsewhere."""

    def answering(self, method: str) -> RunItems:
        """Who answers an `Ask` by a method."""


class OpenedJudge(NamedTuple):
    """A judge that can be asked.

    Attributes:
      judge: who judges.
      judging: who gives a verdict on what is `Judged`.
    """

    judge: Judge
    judging: RunItems


class Targets:
    """Loads one target or judge after another."""

    def __init__(self, stage: "Evaluate", context: StageContext):
        """Loads nothing yet."""
        self._stage, self._context = stage, context

    def likelihoods(
        self, name: str, folder: Path, sets: Sequence[AskedSet], stack: ExitStack
    ) -> Answers:
        """A target that is asked for log-likelihoods alone; see `answers`."""
        return self.open_likelihoods(name, folder)

    def answers(
        self,
        name: str,
        folder: Path | None,
        methods: Sequence[str],
        sets: Sequence[AskedSet],
        stack: ExitStack,
    ) -> Answers:
        """A target that answers.

        Args:
          name: of the model.
          folder: of its files; None: it is behind the endpoint.
          methods: by which it will answer.
          sets: that it will be asked.
          stack: closes what is open.
        """
        return self.open(name, folder, methods, [asked.attack for asked in sets], stack)

    def judge(self, spec: JudgeSpec, stack: ExitStack) -> OpenedJudge:
        """A judge; `stack` closes it."""
        stage, context = self._stage, self._context
        loaded = stack.enter_context(
            load_judge(spec, stage.grading, context.folder, context.runtime, stage.dtype_used)
        )
        return OpenedJudge(loaded.judge, judging(loaded.driver(), loaded.judge))

    def models_beside(self, methods: Sequence[str], attacks: Sequence[Attack]) -> dict[str, Path]:
        """Folders of the models that a target needs beside its own, by the fields that name them.

        Args:
          methods: by which it will answer.
          attacks: on it.
        """
        stage, context, found = self._stage, self._context, dict[str, Path]()
        searches = [parse_method(method) for method in methods if is_search(method)]
        if stage.attacker and any("attacker" in attack.NEEDS for attack in attacks):
            found["attacker"] = find_model(stage.attacker)
        if any(search.is_guided for search in searches):
            if stage.prm_checkpoint:
                found["prm_checkpoint"] = find_model(stage.prm_checkpoint)
            else:
                found["prm"] = context.input("prm") / "hf"
        if any(search.is_self_rewarded for search in searches):
            found |= stage.judging_folders(context)
        return found

    def open_likelihoods(self, name: str, folder: Path) -> Opened:
        """A target that has log-likelihoods alone: its weights are laid out for whole sequences."""
        config = huggingface.load_config(folder)
        layout = lay_out_engine(config, self._stage.engine, self._context.runtime)
        params = huggingface.load_params(folder, layout.config, layout.mesh)
        service = LikelihoodService(LikelihoodScorer(layout.config, params, mesh=layout.mesh))
        target = LocalTarget(name, _encoder(folder), None, likelihood_service="")
        return Opened(Means(target, seed=self._context.seed), Driver(service))

    def open(
        self,
        name: str,
        folder: Path | None,
        methods: Sequence[str],
        attacks: Sequence[Attack],
        stack: ExitStack,
    ) -> Opened:
        """As `answers`, of this process; `attacks` on it."""
        if folder is None:
            return self._open_endpoint(name, stack)
        config, services = huggingface.load_config(folder), dict[str, Service]()
        beside: Any = ()
        # All of this before the engine, whose cache takes the memory that is left.
        models = self.models_beside(methods, attacks)
        attacker: Target | None = None
        if "attacker" in models:
            attacker, services[ATTACKER_SERVICE], beside = self._open_attacker(
                models["attacker"], config
            )
        weights = None
        if any("weights" in attack.NEEDS for attack in attacks):
            weights = self._weights(folder)
            beside = (beside, weights.params)
        searches = [parse_method(method) for method in methods if is_search(method)]
        named = models.get("prm") or models.get("prm_checkpoint")
        prm = self._prm(named) if named else None
        judges, settings, others = None, self._stage.engine, list[Path]()
        if any(search.is_self_rewarded for search in searches):
            judges = self._judges(folder, stack)
            settings, others = judges.engine, judges.adapters
            services |= judges.services
            beside = (beside, judges.beside)
        layout = lay_out_engine(config, settings, self._context.runtime, beside=beside)
        room = None if weights is None else hold_room(weights)
        engine = start_engine(folder, settings, layout, others)
        del room  # which the cache has not taken
        encoder = _encoder(folder)
        scorers = self._scorers(methods, engine, encoder, prm, judges)
        if prm:
            services |= prm.services
        target = LocalTarget(
            name,
            encoder,
            self._answering(engine, encoder),
            scorers,
            prompt_template=self._stage.prompt_template,
            weights=weights,
        )
        means = Means(target, attacker or target, seed=self._context.seed)
        for attack in attacks:
            if isinstance(attack, Gcg):
                services |= attack.services(means)
        return Opened(means, Driver(engine, services), layout.runtime.slots)

    def _open_endpoint(self, name: str, stack: ExitStack) -> Opened:
        stage, context = self._stage, self._context
        if collectives.num_processes() > 1:
            raise UserError(
                "an endpoint is evaluated by a run of one process, as it alone can keep to the "
                "cap: start one process"
            )
        service = EndpointService(stage.endpoint, context.folder / _LEDGER, where="endpoint")
        stack.enter_context(service)
        # Its own limit is one of cost, the stage's one of all answers of the table.
        sampling = stage.endpoint.sampling
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, stage.max_tokens))
        if sampling.max_tokens < stage.max_tokens:
            say(
                f"{context.name}: answers of {name} have at most {sampling.max_tokens} tokens, by "
                f"endpoint.sampling.max_tokens, others {stage.max_tokens}"
            )
        target = EndpointTarget(name, sampling, stage.prompt_template)
        return Opened(Means(target, target, seed=context.seed), Driver(service))

    def _open_attacker(self, folder: Path, policy: ModelConfig) -> tuple[Target, Service, Any]:
        """A model that writes prompts, beside the one that is attacked; shapes of what it takes."""
        stage, runtime = self._stage, self._context.runtime
        config = huggingface.load_config(folder)
        layout = lay_out_judge(config, stage.engine, policy, stage.engine, runtime)
        planned = plan_laid_out(layout, stage.engine, jax.local_devices())
        engine = start_engine(folder, stage.engine, layout)
        encoder = _encoder(folder)
        answering = self._answering(engine, encoder)
        target = LocalTarget(stage.attacker, encoder, answering, service=ATTACKER_SERVICE)
        return target, engine, planned.resident

    def _answering(self, engine: Engine, encoder: ChatEncoder) -> dict[bool, Answering]:
        """How an engine is asked by methods that search, and by others."""
        settings = {True: self._stage.test_time, False: self._stage.greedy_settings}
        return {
            searches: Answering(
                engine, encoder.tokenizer, own, self._context.seed, engine.max_length
            )
            for searches, own in settings.items()
        }

    def _weights(self, folder: Path) -> Weights:
        """Those of one device, in whole precision of the settings' dtype."""
        config = huggingface.load_config(folder)
        layout = lay_out_engine(config, self._stage.engine, self._context.runtime)
        if layout.mesh is not None:
            raise UserError(
                "an attack by gradients (gcg) works on one device: start it where one is visible, "
                "or set runtime.decoding_mesh to one device"
            )
        return Weights(layout.config, huggingface.load_params(folder, layout.config, None))

    def _prm(self, folder: Path) -> PrmScorer:
        stage, context = self._stage, self._context
        layout = lay_out_engine(huggingface.load_config(folder), stage.engine, context.runtime)
        params: Mapping[str, Any] = {
            "model": huggingface.load_params(folder, layout.config, layout.mesh),
            "score": huggingface.load_score_head(folder, layout.mesh),
        }
        return PrmScorer(layout.config, params, buckets=stage.prm_buckets, mesh=layout.mesh)

    def _judges(self, folder: Path, stack: ExitStack) -> Judges:
        """Who judges the candidates of a search by self-reward, beside the model itself."""
        stage = self._stage
        loaded = stage.load_judges(self._context, folder, stage.engine)
        return stack.enter_context(closing(loaded))

    def _scorers(
        self,
        methods: Sequence[str],
        engine: Engine,
        encoder: ChatEncoder,
        prm: PrmScorer | None,
        judges: Judges | None,
    ) -> dict[str, Scorer]:
        """Of the methods that search."""
        stage, scorers = self._stage, dict[str, Scorer]()
        for method in filter(is_search, methods):
            if prm and parse_method(method).is_guided:
                scorers[method] = prm
            elif judges:
                judge = SearchJudge(encoder.tokenizer, stage.judge, judges.sources)
                scorers[method] = SelfReward(
                    engine,
                    judge,
                    stage.reward,
                    stage.test_time,
                    self._context.seed,
                    judges.services,
                )
        return scorers


def _encoder(folder: Path) -> ChatEncoder:
    is_structured = set(TAGS) <= load_huggingface(folder).get_vocab().keys()
    return ChatEncoder(prepare_tokenizer(folder), is_structured)
