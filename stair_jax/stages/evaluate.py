"""Evaluation: models and methods against benchmarks and attacks, as a table with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
from jax.sharding import Mesh

from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation import suites
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.attacks.stored import PREFIX
from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.evaluation.judges.rules import RuleJudge
from stair_jax.evaluation.judges.settings import JudgeSettings as GraderSettings
from stair_jax.evaluation.judges.settings import JudgeSpec
from stair_jax.evaluation.labelled import read_labelled
from stair_jax.evaluation.suites import Wanted
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.writers import read_table
from stair_jax.evaluation.writers.terminal_table import terminal_table
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import SEARCHES, parse_method
from stair_jax.inference.scorers import PrmScorer
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.huggingface import hub
from stair_jax.monitoring import say
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.decoding import prm_score
from stair_jax.planning.needs import Needs, Work
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.engines import DECODING_MEMORY, EngineSettings, PlannedEngine, plan_engine
from stair_jax.run.evaluation_judges import check_judge
from stair_jax.run.model_folders import find_model
from stair_jax.run.stage import Artifact, stage_input
from stair_jax.settings import require, setting
from stair_jax.stages.evaluate_parts import Evaluation
from stair_jax.stages.judging_stage import JudgingStage
from stair_jax.stages.prm import prm_axes
from stair_jax.text.chat import prepare_tokenizer

PROMPTED = "prompted"
_TABLE = "table.json"


@dataclass(frozen=True)
class Evaluate(JudgingStage):
    """Settings of `evaluate`, beside those of who judges in the methods by self-reward.

    Attributes:
      data: the stage that holds the rows of the benchmark "pocket"; empty: `files` does.
      files: folder of the files of all other benchmarks; empty: there are none.
      suite: "paper", "safety" or "quick", see docs/evaluation.md; empty: `benchmarks` alone.
      benchmarks: names, BENCHMARK or BENCHMARK:ATTACK, beside those of the suite; empty: "pocket",
        where there is no suite.
      limit: cases of each benchmark, drawn by the seed; 0: all (of the suite "quick", 100).
      models: stages whose models answer greedily.
      checkpoints: models that no stage makes: Hugging Face folders, stages of other runs, hub ids.
      endpoint: a model behind an OpenAI-compatible endpoint; without a model there: none.
      prompted: a stage whose model is asked to think first (the method "prompted").
      prompted_checkpoint: the same where no stage makes it; one of `checkpoints`.
      prompt_template: how it is asked, with `{prompt}`.
      searched: the stage whose model searches at test time; empty: no such rows.
      searched_checkpoint: the same where no stage makes it.
      methods: "best_of_n", "beam_search" and "dvts", guided by the PRM; with the ending
        "_self_reward" by the model's own judgements. Each also with a size in place of that of
        `test_time`: "best_of_n:16", "beam_search:4x4" (width x successors), "dvts:4x4".
      prm: the stage of the process reward model.
      prm_checkpoint: the same where no stage makes it.
      test_time: see `TestTimeSettings`.
      attacks: budgets of the attacks, see `AttackSettings`.
      attacker: model that writes the prompts of attacks: a checkpoint; empty: the attacked model.
      graders: who grades what no rule of a benchmark can: "rule", "endpoint", or models, see
        `JudgeSpec`; the first is the main one.
      grading: how they are asked.
      labelled: files of answers with labels by humans, by the question that they answer: each
        grader is compared with them, and its figures are corrected.
      max_tokens: of an answer.
      context_tokens: most tokens of a sequence.
      dtype: of weights and activations; empty: float32 on CPUs, bfloat16 on accelerators.
      weights: of the layers, as in a search: "none", "fp8" or "int8".
    """

    VERSION: ClassVar[int] = 3  # 3: cells, methods and attacks
    PROCESSES: ClassVar[Literal["all", "first"]] = "all"
    MEMORY: ClassVar[tuple[str, ...]] = DECODING_MEMORY
    DEALS: ClassVar[bool] = True

    data: str = stage_input(Artifact.EVALUATION, required=False)
    files: str = ""
    suite: str = setting("", choices=("", *suites.SUITES))
    benchmarks: tuple[str, ...] = ()
    limit: int = setting(0, least=0)
    models: tuple[str, ...] = stage_input(Artifact.MODEL, many=True, required=False)
    checkpoints: tuple[str, ...] = ()
    endpoint: EndpointSettings = setting(EndpointSettings)
    prompted: str = stage_input(Artifact.MODEL, required=False)
    prompted_checkpoint: str = ""
    prompt_template: str = "{prompt}"
    searched: str = stage_input(Artifact.MODEL, required=False)
    searched_checkpoint: str = ""
    methods: tuple[str, ...] = ()
    prm: str = stage_input(Artifact.REWARD_MODEL, required=False)
    prm_checkpoint: str = ""
    test_time: TestTimeSettings = setting(TestTimeSettings)
    attacks: AttackSettings = setting(AttackSettings)
    attacker: str = ""
    graders: tuple[str, ...] = ("rule",)
    grading: GraderSettings = setting(GraderSettings)
    labelled: Mapping[str, str] = setting(dict)
    max_tokens: int = setting(4096, least=1, most=2**24)
    context_tokens: int = setting(8192, least=1, most=2**24)
    dtype: str = setting("float32", choices=("", *DTYPES))
    weights: str = setting("none", choices=("none", "fp8", "int8"))

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        for method in self.methods:
            parse_method(method, "methods", SEARCHES)
        for stage in ("prompted", "searched", "prm"):
            both = getattr(self, stage) and getattr(self, f"{stage}_checkpoint")
            require(not both, f"{stage} and {stage}_checkpoint are both set: name one of them")
        searched = self.searched or self.searched_checkpoint
        require(
            bool(self.prm or self.prm_checkpoint) or not self.is_guided,
            "prm is empty: name the stage that guides the search",
        )
        require(
            bool(searched) or not self.methods,
            "searched is empty: name the stage that searches",
        )
        require("{prompt}" in self.prompt_template, "prompt_template must hold {prompt}")
        wanted = self.wanted
        require(
            bool(self.data or self.files) or all(each.benchmark != Pocket.NAME for each in wanted),
            f"data is empty: name the stage that holds the rows of {Pocket.NAME}",
        )
        graders = [str(JudgeSpec.parse(grader)) for grader in self.graders]
        for grader in graders:
            require(graders.count(grader) == 1, f"graders names {grader!r} twice: name it once")
        for question in self.labelled:
            require(
                question in QUESTIONS,
                f"labelled names {question!r}: {did_you_mean(question, QUESTIONS)}",
            )
        self._check_names()

    def _check_names(self) -> None:
        """Raises a UserError if a row is named twice, or two models would share their answers."""
        origins: dict[str, str] = {}
        for name, origin in self._origins():
            other = origins.setdefault(name, origin)
            require(
                other == origin,
                f"two models have the name {name!r} in the table, {other} and {origin}: rename one",
            )
        rows = self.rows
        for row in rows:
            shown = f"{row.model!r} answers by the method {row.method}"
            require(rows.count(row) == 1, f"{shown} twice: name each model and method once")

    def _origins(self) -> Iterator[tuple[str, str]]:
        """(name in the table, where the model is) of each model that is named."""
        for stage in filter(None, (*self.models, self.prompted, self.searched)):
            yield stage, f"the stage {stage}"
        named = (*self.checkpoints, self.prompted_checkpoint, self.searched_checkpoint)
        for checkpoint in filter(None, named):
            yield model_name(checkpoint), str(checkpoint_folder(checkpoint) or checkpoint)
        if self.endpoint.model:
            yield self.endpoint.model, f"the endpoint {self.endpoint.base_url}"

    @property
    def wanted(self) -> list[Wanted]:
        """What is asked."""
        default = () if self.suite or self.benchmarks else (Pocket.NAME,)
        return suites.wanted_of(self.suite, (*self.benchmarks, *default))

    @property
    def rows(self) -> list[RowKey]:
        """The rows of the table."""
        greedy = [*self.models, *map(model_name, self.checkpoints)]
        prompted = self.prompted or model_name(self.prompted_checkpoint)
        searched = self.searched or model_name(self.searched_checkpoint)
        return [
            *(RowKey(name, "greedy") for name in greedy),
            *((RowKey(self.endpoint.model, "greedy"),) if self.endpoint.model else ()),
            *((RowKey(prompted, PROMPTED),) if prompted else ()),
            *(RowKey(searched, method) for method in self.methods),
        ]

    @property
    def is_guided(self) -> bool:
        """Whether a reward model is needed."""
        return any(parse_method(method).is_guided for method in self.methods)

    @property
    def is_self_rewarded(self) -> bool:
        """Whether the model's own judgements guide a search."""
        return any(parse_method(method).is_self_rewarded for method in self.methods)

    @property
    def engine(self) -> EngineSettings:
        """What the engines depend on."""
        return EngineSettings(self.context_tokens, self.dtype_used, self.weights)

    @property
    def dtype_used(self) -> str:
        """`dtype`, or what suits the devices."""
        if self.dtype:
            return self.dtype
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"

    @property
    def greedy_settings(self) -> TestTimeSettings:
        """Of answers that no search makes."""
        return replace(self.test_time, max_answer_tokens=self.max_tokens)

    def folders(self, data: Path | None) -> list[Path]:
        """Where the rows of benchmarks are looked for; `data` is the folder of that stage."""
        own = [Path(self.files).expanduser()] if self.files else []
        return [*([data] if data else []), *own]

    def read_sets(self, data: Path | None, seed: int) -> list[AskedSet]:
        """The cases of all benchmarks that are there."""
        limit = suites.limit_of(self.suite, self.limit)
        return suites.read_sets(self.wanted, self.folders(data), self.attacks, limit, seed)

    def run(self, context: StageContext) -> None:
        """Writes `answers/*.jsonl`, `verdicts/*.jsonl`, then the table in its forms."""
        data = context.input("data") if self.data else None
        sets = self.read_sets(data, context.seed)
        Evaluation(self, context, sets).run()

    def summary(self, folder: Path) -> str:
        """The table of a finished evaluation; the differences of its rows are in its files."""
        return terminal_table(replace(read_table(folder / _TABLE), compared=()))

    def planned_model(self, inputs: Any) -> None:
        """It hands on no model."""
        return None

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """Its time depends on benchmarks, attacks and judges: it is not known."""
        return replace(super().needs(context, work), seconds=None)

    def amount(self) -> str:
        """Rows and columns of the table."""
        return f"{len(self.rows)} rows of the table, {len(self.wanted)} benchmarks and attacks"

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """As usual; and the rows of the benchmarks, checkpoints, and files that settings name."""
        found: dict[str, Sequence[Path] | str] = dict(super().sources())
        for name in dict.fromkeys(each.benchmark for each in self.wanted):
            benchmark = suites.make_benchmark(name)
            if path := suites.find_file(benchmark, self.folders(None)):
                found[name] = benchmark.files(path)
        for field, file in self._own_files().items():
            if (path := Path(file).expanduser()).is_file():
                found[field] = [path]
        specs = map(JudgeSpec.parse, self.graders)
        judges = [spec.name for spec in specs if spec.kind in ("model", "classifier")]
        for name in dict.fromkeys([*self._models_elsewhere(), *judges]):
            content = hub.source_files(str(find_model(name, weights=False)))
            if content is not None:
                found[name] = content
        return found

    def check_environment(self, folder: Path) -> None:
        """As usual; says which benchmarks have no rows, which judges are missing, and goes on."""
        super().check_environment(folder)
        if self.files and not Path(self.files).expanduser().is_dir():
            raise UserError(f"files: there is no folder {self.files}")
        self._check_attacks(folder.name)
        made = Pocket.NAME if self.data else ""  # by a stage, which may not have run yet
        elsewhere = [each for each in self.wanted if each.benchmark != made]
        missing = suites.absent(elsewhere, self.folders(None), self.attacks)
        for name, reason in missing.items():
            say(f"{folder.name}: {name} is left out: {reason}")
        if all(each.benchmark in missing or str(each) in missing for each in self.wanted):
            raise UserError("no benchmark has its rows: set files to the folder that holds them")
        suites.read_sets(elsewhere, self.folders(None), self.attacks)  # all of it can be read
        for file in self.labelled.values():
            read_labelled(Path(file).expanduser())
        self._say_ungraded(folder.name, missing)
        for name in self._models_elsewhere():
            base = find_model(name, weights=False)
            huggingface.load_config(base)
            prepare_tokenizer(base)
        if self.endpoint.model:
            self.endpoint.check("endpoint")
        for grader in self.graders:
            check_judge(JudgeSpec.parse(grader), self.grading)

    def check_cluster(self) -> None:
        """Checks that workers of a cluster can do the work of the stage."""
        if self.is_self_rewarded:
            self.check_dealt_judge()

    def check_devices(self, context: PlanContext) -> None:
        """Checks that an engine fits for each model."""
        for field in ("models", "prompted", "searched"):
            for model in context.models.get(field, ()):
                self._plan(context, model)

    def programs(self, context: PlanContext) -> list[Program]:
        """The engine's programs for each model, and the scores that guide the search."""
        greedy = [*context.models.get("models", ()), *context.models.get("prompted", ())]
        planned = [program for model in greedy for program in self._plan(context, model).programs()]
        if self.searched and self.is_self_rewarded:
            planned += self._plan_self_reward(context)
        if self.searched and self.prm and self.is_guided:
            planned += self._plan_guided(context)
        return planned

    def _plan_guided(self, context: PlanContext) -> list[Program]:
        prm = self._plan(context, context.model("prm"))
        params = abstract_prm(prm.config, prm_axes(prm.config), prm.place)
        mesh = prm.place if isinstance(prm.place, Mesh) else None
        scorer = PrmScorer(prm.config, params, buckets=self.prm_buckets, mesh=mesh)
        engine = self._plan(context, context.model("searched"), params)
        length = self.context_tokens
        guide = prm_score(prm.config, params, scorer, length, prm.place, engine.resident)
        return [*engine.programs(params), guide]

    def _plan_self_reward(self, context: PlanContext) -> list[Program]:
        policy = context.model("searched")
        settings = self.planned_settings(context, "searched", self.engine)
        judging, beside = self.plan_judges(context, policy, settings)
        engine = self._plan(context, policy, beside, settings)
        return [*engine.programs(beside), *judging]

    def _plan(
        self,
        context: PlanContext,
        model: ModelConfig,
        beside: Any = (),
        settings: EngineSettings | None = None,
    ) -> PlannedEngine:
        devices = context.decoding_devices
        return plan_engine(model, settings or self.engine, context.runtime, devices, beside)

    @property
    def prm_buckets(self) -> tuple[int, ...]:
        """Shortest length that sequences of the reward model are padded to."""
        return (min(256, self.context_tokens),)

    def _own_files(self) -> dict[str, str]:
        """The files that settings name, by the setting."""
        grading, attacks = self.grading, self.attacks
        named = {
            **{f"labelled.{question}": file for question, file in self.labelled.items()},
            **{f"grading.wordings.{name}": file for name, file in grading.wordings.items()},
            "grading.policy": grading.policy,
            "grading.rule_phrases": grading.rule_phrases,
            "attacks.many_shot.examples": attacks.many_shot.examples,
            "attacks.role_play.templates": attacks.role_play.templates,
            "attacks.stored.path": attacks.stored.path,
            "attacks.pap.taxonomy": attacks.pap.taxonomy,
        }
        return {field: file for field, file in named.items() if file}

    def _models_elsewhere(self) -> list[str]:
        named = (
            *self.checkpoints,
            self.prompted_checkpoint,
            self.searched_checkpoint,
            self.prm_checkpoint,
            self.attacker,
        )
        return list(dict.fromkeys(filter(None, named)))

    def _check_attacks(self, name: str) -> None:
        """Looks for attacks that no search can be under; those of a suite are left out of its rows.

        Raises:
          UserError: one is named beside a method that searches.
        """
        wanted = [each for each in self.wanted if not each.attack.startswith(PREFIX)]
        unfit = [each for each in wanted if make_attack(each.attack, self.attacks).sets_sampling]
        if not self.methods or not unfit:
            return
        why = "an attack that sets how answers begin or are sampled goes with no search"
        methods, own = ", ".join(self.methods), [*map(Wanted.parse, self.benchmarks)]
        named = ", ".join(str(each) for each in unfit if each in own)
        require(
            not named,
            f"benchmarks names {named}, and methods {methods}: {why}: evaluate it without methods",
        )
        left_out = ", ".join(map(str, unfit))
        say(f"{name}: {left_out} is left out of the rows of {methods}: {why}")

    def _say_ungraded(self, name: str, missing: Mapping[str, str]) -> None:
        """Says which benchmarks no grader can grade."""
        for each in dict.fromkeys(each.benchmark for each in self.wanted):
            benchmark = None if each in missing else suites.make_benchmark(each)
            kinds = {JudgeSpec.parse(grader).kind for grader in self.graders}
            if benchmark is None or not benchmark.QUESTION or kinds - {"rule"}:
                continue
            by_rule = benchmark.question_for(RuleJudge.QUESTIONS.__contains__) if kinds else ""
            if by_rule != benchmark.QUESTION:
                what = "only its refusals are counted" if by_rule else "it is not graded"
                say(
                    f"{name}: {each} is answered, and {what}: its question, {benchmark.QUESTION}, "
                    "needs a model or an endpoint in graders"
                )


def model_name(checkpoint: str) -> str:
    """A checkpoint in the table: the last part of a path, and an id of the hub as it is."""
    folder = checkpoint_folder(checkpoint)
    return folder.name if folder else checkpoint


def checkpoint_folder(checkpoint: str) -> Path | None:
    """The folder that a checkpoint is named by, of a stage that of the stage; None: it has none."""
    path = Path(checkpoint).expanduser()
    if not checkpoint or not path.is_dir():
        return None
    path = path.resolve()
    return path.parent if path.name == "hf" else path
