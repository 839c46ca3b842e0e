"""What the stages that judge answers have in common: the models that judge beside the policy."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.sharding import Mesh

from stair_jax.decoding.score_requests import PRM_SERVICE
from stair_jax.decoding.task import Service
from stair_jax.endpoints.service import EndpointService
from stair_jax.errors import UserError
from stair_jax.inference.score_service import ScoreService
from stair_jax.inference.scorers import PrmScorer
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import hub
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.decoding import prm_score
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.engines import (
    EngineLayout,
    EngineSettings,
    lay_out_engine,
    lay_out_judge,
    plan_laid_out,
    start_engine,
)
from stair_jax.run.model_folders import have_one_base
from stair_jax.run.runtime import Runtime
from stair_jax.run.savings import Saving, decoding_savings
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.judging.sources.language_model import LanguageModelSource
from stair_jax.search.judging.sources.reward_model import RewardModelSource
from stair_jax.search.judging.sources.source import Source
from stair_jax.settings import setting
from stair_jax.stages.prm import prm_axes
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import load_huggingface

JUDGE_SERVICE = "judge"
ENDPOINT_SERVICE = "endpoint"
JUDGE_LEDGER = "judge_replies.jsonl.gz"
# (source, field of a stage, field of a checkpoint) of judges that are models.
_MODELS = (
    ("model", "judge_model", "judge_checkpoint"),
    ("prm", "judge_prm", "judge_prm_checkpoint"),
)


@dataclass
class Judges:
    """What judges beside the policy: loaded, and to be closed.

    Attributes:
      sources: for `Judge`, by name.
      services: for a driver, by name.
      beside: shapes of what is on the devices.
      engine: of the policy, which serves what judges in it too.
      adapters: folders of what judges in it, see `run.engines.start_engine`.
    """

    engine: EngineSettings
    adapters: list[Path] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    beside: Any = ()
    _open: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Ends the connections to an endpoint."""
        self._open.close()


@dataclass(frozen=True)
class JudgingStage(Stage):
    """Settings of stages that judge answers.

    Attributes:
      judge: who scores answers and how, see `JudgeSettings`, and `SearchJudge` where the judge is
        probed before.
      reward: R of helpfulness and safety, see `SafetyReward`.
      judge_model: of the source "model", the stage whose model judges.
      judge_checkpoint: the same where no stage makes it: a Hugging Face folder or an id of its hub.
      judge_prm: of the source "prm", the stage of the reward model.
      judge_prm_checkpoint: the same where no stage makes it: a folder or hub id of one of our
        reward models, or of a sequence classifier with one label.
    """

    KEEPS: ClassVar[bool] = True  # trees and answers: none may be of another model or judge

    judge: JudgeSettings = setting(JudgeSettings)
    reward: SafetyReward = setting(SafetyReward)
    judge_model: str = stage_input(Artifact.MODEL, required=False)
    judge_checkpoint: str = ""
    judge_prm: str = stage_input(Artifact.REWARD_MODEL, required=False)
    judge_prm_checkpoint: str = ""

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        for source, stage, checkpoint in _MODELS:
            self._check_given(source, stage, checkpoint)

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """The files of local checkpoints that judge, or the commits of those of the hub."""
        found = {init: hub.source_files(init) for init in self._checkpoints()}
        return {init: content for init, content in found.items() if content is not None}

    def check_environment(self, folder: Path) -> None:
        """Checks that checkpoints that judge can be read, and that an endpoint may be asked."""
        for init in self._checkpoints():
            base = hub.resolve(init, weights=False)
            huggingface.load_config(base)
            prepare_tokenizer(base)
        if "endpoint" in self.judge.used_sources:
            self.judge.endpoint.check("judge.endpoint")

    def load_judges(
        self, context: StageContext, policy: Path | None, engine: EngineSettings
    ) -> Judges:
        """Loads what judges beside the policy, before the policy's engine takes the memory left.

        Args:
          context: of the stage.
          policy: folder of the policy; None: there is none, and no source needs a device.
          engine: of the policy.
        """
        judges = Judges(engine)
        used = self.judge.used_sources
        if "prm" in used:
            self._load_prm(context, engine, judges)
        if "model" in used:
            assert policy is not None
            self._load_model(context, policy, engine, judges)
        if "endpoint" in used:
            if collectives.num_processes() > 1:
                raise UserError(
                    "an endpoint judges in a run of one process, as it alone can keep to the cap: "
                    "start one process, or name another judge.source"
                )
            service = EndpointService(
                self.judge.endpoint,
                self.replies_in(context.folder) / JUDGE_LEDGER,
                where="judge.endpoint",
            )
            judges.services[ENDPOINT_SERVICE] = judges._open.enter_context(service)
        return judges

    def judging_folders(self, context: StageContext) -> dict[str, Path]:
        """Folders of the models that judge beside the policy, by the field that names each."""
        found = {}
        for source, stage, checkpoint in _MODELS:
            if source in self.judge.used_sources:
                named = getattr(self, checkpoint)
                found[checkpoint if named else stage] = self._folder(context, stage, named)
        return found

    def check_dealt_judge(self) -> None:
        """Checks that workers of a cluster can ask the judge.

        Raises:
          UserError: it is behind an endpoint.
        """
        if "endpoint" in self.judge.used_sources:
            raise UserError(
                "an endpoint judges in a run of one process, as it alone can keep to the cap: "
                "leave --cluster out, or name another judge.source"
            )

    def replies_in(self, folder: Path) -> Path:
        """Where the replies of an endpoint are kept; `folder` is that of the stage."""
        return folder

    def planned_settings(
        self, context: PlanContext, policy: str, engine: EngineSettings
    ) -> EngineSettings:
        """Of the policy's engine, which serves the judge too where both have one base.

        Args:
          context: of the stage.
          policy: the field that names the stage of the policy.
          engine: of the policy alone.
        """
        is_model = "model" in self.judge.used_sources and bool(self.judge_model)
        bases = [context.bases.get(name, getattr(self, name)) for name in (policy, "judge_model")]
        return replace(engine, is_shared=is_model and engine.is_whole and bases[0] == bases[1])

    def plan_judges(
        self, context: PlanContext, policy: ModelConfig, engine: EngineSettings
    ) -> tuple[list[Program], Any]:
        """(programs of what judges beside the policy, shapes of what is then on the devices).

        Args:
          context: of the stage.
          policy: the model of the policy.
          engine: as of `planned_settings`.

        Raises:
          UserError: something does not fit.
        """
        programs: list[Program] = []
        beside: Any = ()
        devices, runtime, used = context.decoding_devices, context.runtime, self.judge.used_sources
        if "prm" in used:
            layout = lay_out_engine(self._prm_config(context), engine, runtime, devices)
            beside = abstract_prm(layout.config, prm_axes(layout.config), layout.place)
            scorer = self._scorer(layout, beside, engine)
            guide = partial(prm_score, layout.config, beside, scorer, engine.context_tokens)
            programs.append(guide(layout.place, ()))
        if "model" in used and not engine.is_shared:
            own = _settings_of_judge(engine)
            layout = lay_out_judge(
                self._judge_config(context),
                own,
                policy,
                engine,
                self._runtime_of_judge(runtime),
                devices,
                beside,
            )
            planned = plan_laid_out(layout, own, devices, beside)
            programs += planned.programs(beside)
            beside = (beside, planned.resident)
        return programs, beside

    def savings(self, context: PlanContext) -> Sequence[Saving]:
        """Fewer slots and rows, a mesh that splits the weights, 8 bits."""
        devices = context.decoding_devices
        return decoding_savings(self, context.runtime, devices[0].platform, len(devices))

    def _load_model(
        self, context: StageContext, policy: Path, engine: EngineSettings, judges: Judges
    ) -> None:
        folder = self._folder(context, "judge_model", self.judge_checkpoint)
        tokenizer = prepare_tokenizer(folder)
        model, other = map(huggingface.load_config, (folder, policy))
        if engine.is_whole and have_one_base(folder, policy):
            judges.engine = replace(engine, is_shared=True)
            adapter = None if folder.resolve() == policy.resolve() else 0
            if adapter is not None and model.lora:
                judges.adapters.append(folder)
                adapter = 1 + (other.lora is not None)
            judges.sources["model"] = LanguageModelSource(tokenizer, self.judge, adapter=adapter)
            say(f"{context.name}: the model in {folder} judges, over the base of the policy")
            return
        own, runtime = _settings_of_judge(engine), self._runtime_of_judge(context.runtime)
        layout = lay_out_judge(model, own, other, engine, runtime, beside=judges.beside)
        planned = plan_laid_out(layout, own, jax.local_devices(), judges.beside)
        judges.services[JUDGE_SERVICE] = start_engine(folder, own, layout)
        judges.sources["model"] = LanguageModelSource(tokenizer, self.judge, JUDGE_SERVICE)
        judges.beside = (judges.beside, planned.resident)
        say(f"{context.name}: the model in {folder} judges")

    def _runtime_of_judge(self, runtime: Runtime) -> Runtime:
        """One step a call where a judgement is one step: more would be waited for in vain."""
        return replace(runtime, steps_per_call=1) if self.judge.mode == "expected" else runtime

    def _load_prm(self, context: StageContext, engine: EngineSettings, judges: Judges) -> None:
        folder = self._folder(context, "judge_prm", self.judge_prm_checkpoint)
        layout = lay_out_engine(huggingface.load_config(folder), engine, context.runtime)
        params = {
            "model": huggingface.load_params(folder, layout.config, layout.mesh),
            "score": huggingface.load_score_head(folder, layout.mesh),
        }
        is_structured = set(TAGS) <= load_huggingface(folder).get_vocab().keys()
        judges.services[PRM_SERVICE] = ScoreService(self._scorer(layout, params, engine))
        judges.sources["prm"] = RewardModelSource(
            prepare_tokenizer(folder), self.judge, is_structured
        )
        judges.beside = abstract_prm(layout.config, prm_axes(layout.config), layout.place)
        form = "steps and their tags" if is_structured else "final answers"
        say(f"{context.name}: the reward model in {folder} judges, by {form}")

    def _scorer(self, layout: EngineLayout, params: Any, engine: EngineSettings) -> PrmScorer:
        mesh = layout.place if isinstance(layout.place, Mesh) else None
        buckets = (min(256, engine.context_tokens),)
        return PrmScorer(layout.config, params, buckets=buckets, mesh=mesh)

    def _folder(self, context: StageContext, field: str, checkpoint: str) -> Path:
        return hub.resolve(checkpoint) if checkpoint else context.input(field) / "hf"

    def _judge_config(self, context: PlanContext) -> ModelConfig:
        if not self.judge_checkpoint:
            return context.model("judge_model")
        return huggingface.load_config(hub.resolve(self.judge_checkpoint, weights=False))

    def _prm_config(self, context: PlanContext) -> ModelConfig:
        if not self.judge_prm_checkpoint:
            return context.model("judge_prm")
        return huggingface.load_config(hub.resolve(self.judge_prm_checkpoint, weights=False))

    def _checkpoints(self) -> list[str]:
        return [init for init in (self.judge_checkpoint, self.judge_prm_checkpoint) if init]

    def _check_given(self, source: str, stage: str, checkpoint: str) -> None:
        """Checks that a source has its model, and a model its source."""
        given = [name for name in (stage, checkpoint) if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"{stage} and {checkpoint} are both set: name one of them")
        is_used = source in self.judge.used_sources
        if is_used and not given:
            raise UserError(
                f"judge.source names {source!r}: name a stage in {stage}, or a folder or hub id in "
                f"{checkpoint}"
            )
        if given and not is_used:
            raise UserError(
                f"{given[0]} is set, and judge.source does not name {source!r}: add it, or leave "
                f"{given[0]} empty"
            )


def _settings_of_judge(engine: EngineSettings) -> EngineSettings:
    """As of the policy, in whole weights: judgements in 8 bits would be those of another model."""
    return EngineSettings(engine.context_tokens, engine.dtype)
