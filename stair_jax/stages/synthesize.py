"""Answers that a model writes, judged and filtered: SFT examples, and pairs for DPO."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from stair_jax.data.records import KINDS, SynthesisPrompt
from stair_jax.data.row_file import RowFile
from stair_jax.decoding.item_tasks import run_here
from stair_jax.errors import UserError
from stair_jax.evaluation.shards import Shards
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.planning.figures import Basis, Figure
from stair_jax.planning.needs import Needs, Work, plain_needs
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.engines import (
    DECODING_MEMORY,
    EngineSettings,
)
from stair_jax.run.stage import Artifact, stage_input
from stair_jax.settings import setting
from stair_jax.stages.probed_stage import ProbedStage
from stair_jax.stages.stage_needs import decoding_needs
from stair_jax.stages.synthesize_cluster import answer_on_cluster
from stair_jax.stages.synthesize_log import AnswerLog
from stair_jax.stages.synthesize_opening import open_means
from stair_jax.stages.synthesize_parts import (
    ANSWERS_FILE,
    PAIRS_FILE,
    SFT_FILE,
    read_answers,
    summarize,
    write_results,
)
from stair_jax.stages.synthesize_prompts import read_prompts
from stair_jax.stages.synthesize_teacher import write_ledger
from stair_jax.storage import writing
from stair_jax.synthesis.categories import check_kinds
from stair_jax.synthesis.policies import policies_of, policy_files
from stair_jax.synthesis.prompt_task import PromptTask
from stair_jax.synthesis.selection import check_scored
from stair_jax.synthesis.settings import AcceptSettings, PairSettings, WritingSettings
from stair_jax.synthesis.teacher_settings import TeacherSettings, check_teacher
from stair_jax.text.policies import POLICIES

_IN_FLIGHT = 4096  # prompts that are begun and not done
_ANSWER_BYTES = 8000  # of an answer on the disk: text and tokens, twice while they are joined


@dataclass(frozen=True)
class Synthesize(TeacherSettings, ProbedStage, WritingSettings, AcceptSettings, PairSettings):
    """Settings of `synthesize`, beside those of writing, of what is kept, of pairs, and of judging.

    Attributes:
      model: the stage whose model writes, unless a teacher does, and judges where `judge.source`
        says "policy"; empty where nothing asks it.
      prompts: the stage that holds `file`.
      file: JSON lines of prompts {id, prompt, kind, source}, or of SFT examples; with `category`
        where that decides on the policy, and `answer` for pairs "given_own".
      num_prompts: the first so many of the file, of `kinds`; 0: all.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      weights: of the layers while they write: "none": as they are; "fp8" (GPUs) or "int8" (TPUs).
      kv_dtype: of the cache: "": `dtype`; "int8" or "float8_e4m3fn": twice the tokens fit.
      samples_every: prompts from one to the next of which a text sample is written to log,
        `samples.jsonl`, TensorBoard and W&B: the best answer; 0: none. In a run of several
        processes, of the prompts of the first one.
    """

    MEMORY: ClassVar[tuple[str, ...]] = DECODING_MEMORY
    DEALS: ClassVar[bool] = True

    model: str = stage_input(Artifact.MODEL, required=False)
    prompts: str = stage_input(Artifact.PROMPTS, Artifact.SFT_ROWS, file="file")
    file: str = "prompts1.jsonl"
    num_prompts: int = setting(0, least=0)
    context_tokens: int = setting(8192, least=1, most=2**24)
    dtype: str = setting("float32", choices=DTYPES)
    weights: str = setting("none", choices=("none", "fp8", "int8"))
    kv_dtype: str = setting("", choices=("", *DTYPES, "int8", "float8_e4m3fn"))
    samples_every: int = setting(0, least=0, cost=True)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        check_scored(self.judge, self.kinds or KINDS)
        check_teacher(self, self)
        self._check_model()
        needed = self.max_prompt_tokens + self.max_answer_tokens
        if needed > self.context_tokens and not self.is_taught:
            raise UserError(
                f"max_prompt_tokens and max_answer_tokens are {needed} together, and "
                f"context_tokens is {self.context_tokens}: raise it, or lower one of them"
            )
        if self.pairs == "best_worst" and self.num_candidates < 2:
            raise UserError("pairs 'best_worst' need num_candidates of 2 or more")
        names = {*(POLICIES if self.default_policies else ()), *self.policies}
        if names and self.categories == "kind":
            check_kinds(self.kinds, names)

    def _check_model(self) -> None:
        """Checks that there is a model if it is asked, and only then."""
        local = set(self.judge.used_sources) & {"policy", "model", "prm"}
        askers = [
            *([] if self.is_taught else ["without a teacher_endpoint it writes"]),
            *(["categories is 'model'"] if self.chooses_categories else []),
            *(f"judge.source names {name!r}" for name in sorted(local)),
        ]
        if askers and not self.model:
            raise UserError(
                f"model is empty, and {askers[0]}: name an earlier stage that makes a language "
                "model, or let an endpoint or a rule do that"
            )
        if self.model and not askers:
            raise UserError("model is set, and nothing asks it: a teacher writes; leave it empty")

    @property
    def chooses_categories(self) -> bool:
        """Whether the model says which category a prompt is of."""
        return self.categories == "model" and bool(self.policies or self.default_policies)

    @property
    def engine(self) -> EngineSettings:
        """What the engine depends on."""
        return EngineSettings(self.context_tokens, self.dtype, self.weights, self.kv_dtype)

    def makes(self) -> Mapping[str, Artifact]:
        """SFT examples, and pairs where they are wanted."""
        made = {SFT_FILE: Artifact.SFT_ROWS}
        return made | ({PAIRS_FILE: Artifact.STEP_PAIRS} if self.pairs else {})

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """As usual; and the files of policies."""
        return {**super().sources(), **policy_files(self)}

    def check_environment(self, folder: Path) -> None:
        """As usual; and checks that policies can be read."""
        super().check_environment(folder)
        policies_of(self)
        if self.is_taught:
            self.teacher_endpoint.check("teacher_endpoint")

    def check_cluster(self) -> None:
        """Checks that workers of a cluster can do the work of the stage, or need not."""
        if not self.is_taught:
            self.check_dealt_judge()
        elif self.model:
            raise UserError(
                "a teacher behind an endpoint is asked by one process, as it alone can keep to the "
                "cap, and a model would judge there too: leave --cluster out, or let an endpoint "
                "or a rule judge"
            )

    def run(self, context: StageContext) -> None:
        """Answers the prompts that have no answers yet, then sorts all answers.

        The answers to a prompt are written down as they are finished; in a run of several processes
        each answers its own part of the prompts. At the end the first one writes `answers.jsonl`,
        all of them with their scores, and what is made of them: `sft.jsonl`, `rejected.jsonl`,
        `dpo.jsonl` with `pairs`, `counts.json`, and `metrics.jsonl` with a line a prompt.

        Raises:
          UserError: a prompt has no category; or no pair was made, or no answer kept.
        """
        prompts = read_prompts(self, context.input("prompts") / self.file)
        shards = Shards(context.folder / ANSWERS_FILE, [prompt.id for prompt in prompts])
        if not collectives.broadcast(shards.is_finished()):
            self._answer(context, prompts, shards)
            shards.finish()
        if collectives.is_main():
            write_ledger(context.folder, self)
            write_results(context, self, prompts, read_answers(context.folder))

    def _answer(
        self, context: StageContext, prompts: RowFile[SynthesisPrompt], shards: Shards
    ) -> None:
        """Answers what this process has to."""
        place = self.replies_in(context.folder)
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        if context.runtime.cluster and not self.is_taught:
            answer_on_cluster(self, context, prompts, shards)
            return
        with ExitStack() as stack:
            opened = open_means(context, self, prompts, stack)
            run = run_here(opened.driver, partial(PromptTask, opened.means), self._in_flight)
            left = ((key, prompts[prompts.ids.places(key)[0]]) for key in shards.left())
            endpoints, stats = opened.endpoints.values(), opened.engine.stats
            with AnswerLog(context, self, prompts, shards, stats, endpoints) as log:
                for made in run(left):
                    log.write([each.result for each in made])
            opened.means.prefixes.close_all()
            for name, endpoint in opened.endpoints.items():
                say(f"{context.name}: {name} at the {endpoint.report()}")

    @property
    def _in_flight(self) -> int:
        """Prompts that are begun and not done, of which a teacher's batches are made."""
        return max(_IN_FLIGHT, self.teacher_endpoint.batch.size // self.num_candidates)

    def summary(self, folder: Path) -> str:
        """What was kept."""
        return summarize(folder)

    def programs(self, context: PlanContext) -> list[Program]:
        """The engine's programs, and those of what judges."""
        if not self.model:
            return []
        judging, beside, engine = self.plan_policy(context, self.engine)
        return [*engine.programs(beside), *judging]

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """All answers at the measured rate of a search's iterations, which have a judgement too."""
        prompts = Figure(self.num_prompts)
        if not self.num_prompts:
            prompts = work.rows_of(self.prompts, self.file, work.amounts.prompts)
        answers = prompts * self.num_candidates
        needs = plain_needs(0, 0)
        if self.model:
            engine = self.plan_policy(context, self.engine)[2]
            needs = decoding_needs(engine, answers, self.dtype, work)
        disk = answers * _ANSWER_BYTES
        most = min(self.max_per_prompt or self.num_candidates, self.num_candidates)
        rows = {
            SFT_FILE: prompts * Figure(most, Basis.ASSUMED),
            PAIRS_FILE: prompts * Figure(1, Basis.ASSUMED),
        }
        return replace(
            needs,
            disk=disk,
            kept=disk,
            rows={name: count for name, count in rows.items() if name in self.makes()},
            work=f"{prompts.text} prompts x {self.num_candidates} answers",
        )

    def check_devices(self, context: PlanContext) -> None:
        """Checks that the engine and what judges fit."""
        if self.model:
            self.plan_policy(context, self.engine)

    def disk_bytes(self, model: ModelConfig | None) -> int:
        """The answers to `num_prompts`, where these are counted."""
        return self.num_prompts * self.num_candidates * _ANSWER_BYTES

    def amount(self) -> str:
        """Prompts and answers."""
        prompts = f"{self.num_prompts} prompts" if self.num_prompts else f"prompts of {self.file}"
        return f"{prompts}, {self.num_candidates} answers each"
