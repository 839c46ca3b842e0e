"""What the stages have in common whose judge is probed on labelled cases before it judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext
from stair_jax.run.engines import EngineSettings, PlannedEngine, plan_engine
from stair_jax.search.judging.probe_cases import read_cases
from stair_jax.search.judging.probe_settings import SearchJudge
from stair_jax.settings import setting
from stair_jax.stages.judging_stage import JudgingStage


@dataclass(frozen=True)
class ProbedStage(JudgingStage):
    """Settings of stages whose `judge`, a `SearchJudge`, is probed before it judges."""

    judge: SearchJudge = setting(SearchJudge)

    def cost_fields(self) -> list[str]:
        """As usual, and what decides whether the judge may judge."""
        return [*super().cost_fields(), *self.judge.probe_cost_fields()]

    def check_environment(self, folder: Path) -> None:
        """As usual; and checks that the cases of the probe can be read."""
        super().check_environment(folder)
        if self.judge.probe:
            read_cases(self.judge.probe)
        elif self.judge.calibrate:
            raise UserError("judge.calibrate needs labelled cases: set judge.probe")

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """As usual; and the cases of the probe, where they decide what the scores are."""
        path = Path(self.judge.probe).expanduser()
        is_used = self.judge.calibrate and path.is_file()
        return {**super().sources(), **({"judge.probe": [path]} if is_used else {})}

    def plan_policy(
        self, context: PlanContext, engine: EngineSettings
    ) -> tuple[list[Program], Any, PlannedEngine]:
        """Plans the engine of `model`, which a stage of this kind has, beside what judges.

        Args:
          context: of the stage.
          engine: what the engine depends on.

        Returns:
          (programs of what judges, shapes of what it keeps on the devices, the engine).
        """
        devices, model = context.decoding_devices, context.model("model")
        settings = self.planned_settings(context, "model", engine)
        judging, beside = self.plan_judges(context, model, settings)
        return judging, beside, plan_engine(model, settings, context.runtime, devices, beside)
