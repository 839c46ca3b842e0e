"""Evaluation on the pocket world: a table with a row per model, and what lies behind it."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jax.sharding import Mesh

from stair_jax import storage
from stair_jax.data.records import Prompt, read_dicts
from stair_jax.decoding.engine import Engine
from stair_jax.evaluation import pocket_benchmark as benchmark
from stair_jax.inference.beam_search import beam_search
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.greedy import greedy_answers
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.inference.scoring import Scorer
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.monitoring import Progress, say
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.decoding import prm_score
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.engines import (
    DECODING_MEMORY,
    EngineSettings,
    PlannedEngine,
    lay_out_engine,
    load_engine,
    plan_engine,
)
from stair_jax.run.stage import Artifact, stage_input
from stair_jax.search.judging.judges import Judge
from stair_jax.settings import require, setting
from stair_jax.stages.judging_stage import Judges, JudgingStage
from stair_jax.stages.prm import prm_axes
from stair_jax.stopping import heed
from stair_jax.text.tokenizer import Tokenizer

_SELF_REWARD = "_self_reward"
_METHODS = {"best_of_n": best_of_n, "beam_search": beam_search}
_NAMES = tuple(method + guide for method in _METHODS for guide in ("", _SELF_REWARD))
Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluate(JudgingStage):
    """Settings of `evaluate`, beside those of who judges in the methods by self-reward.

    Attributes:
      data: the stage that holds `evaluation.jsonl`.
      models: stages whose models answer greedily; the name of a stage is that of its row.
      prompted: a stage whose model is asked to think first (row "prompted"); empty: no such row.
      prompt_template: how it is asked, with `{prompt}`.
      searched: the stage whose model searches at test time; empty: no such rows.
      methods: "best_of_n" and "beam_search", guided by the PRM; with the ending "_self_reward" by
        the model's own judgements.
      prm: the stage of the process reward model.
      test_time: see `TestTimeSettings`.
      max_tokens: of a greedy answer.
      context_tokens: most tokens of a sequence.
      dtype: of weights and activations.
    """

    VERSION: ClassVar[int] = 2  # 2: conclusions are read in the last line alone, one output block
    PROCESSES: ClassVar[Literal["all", "first"]] = "first"
    MEMORY: ClassVar[tuple[str, ...]] = DECODING_MEMORY

    data: str = stage_input(Artifact.EVALUATION)
    models: tuple[str, ...] = stage_input(Artifact.MODEL, many=True, required=False)
    prompted: str = stage_input(Artifact.MODEL, required=False)
    prompt_template: str = "{prompt}"
    searched: str = stage_input(Artifact.MODEL, required=False)
    methods: tuple[str, ...] = setting((), choices=_NAMES)
    prm: str = stage_input(Artifact.REWARD_MODEL, required=False)
    test_time: TestTimeSettings = setting(TestTimeSettings)
    max_tokens: int = setting(4096, least=1, most=2**24)
    context_tokens: int = setting(8192, least=1, most=2**24)
    dtype: str = setting("float32", choices=DTYPES)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        guided = any(method in _METHODS for method in self.methods)
        require(bool(self.prm) or not guided, "prm is empty: name the stage that guides the search")
        require(
            bool(self.searched) or not self.methods,
            "searched is empty: name the stage that searches",
        )
        require("{prompt}" in self.prompt_template, "prompt_template must hold {prompt}")

    @property
    def engine(self) -> EngineSettings:
        """What the engines depend on."""
        return EngineSettings(self.context_tokens, self.dtype)

    def run(self, context: StageContext) -> None:
        """Writes `answers/ROW.jsonl` per row, then `details.json` and `table.json`."""
        data = context.input("data") / "evaluation.jsonl"
        rows = storage.read_jsonl(data)
        prompts = read_dicts(rows, Prompt, data)
        makers = _makers(context, self, prompts)
        progress = Progress(context.name, len(makers), "models")
        table, details = [], {}
        for name, make in makers.items():
            heed()
            path = context.folder / "answers" / f"{name}.jsonl"
            if not path.exists():  # a row is whole or not there: a run that goes on keeps it
                storage.write_jsonl(path, make())
            judged = benchmark.judge_answers(rows, storage.read_jsonl(path))
            table.append({"model": name, **benchmark.summarize(judged)})
            details[name] = {
                "hazards": benchmark.hazard_outcomes(judged),
                "families": benchmark.breakdown(judged),
            }
            progress.update(len(table))
        progress.close()
        storage.write_json(context.folder / "details.json", details)
        storage.write_json(context.folder / "table.json", table)

    def summary(self, folder: Path) -> str:
        """The table of a finished evaluation."""
        return benchmark.format_table(storage.read_json(folder / "table.json"))

    def planned_model(self, inputs: Any) -> None:
        """It hands on no model."""
        return None

    def amount(self) -> str:
        """Rows of the table."""
        rows = [*self.models, *(("prompted",) if self.prompted else ()), *self.methods]
        return f"{len(rows)} rows of the table"

    def check_devices(self, context: PlanContext) -> None:
        """Checks that an engine fits for each model."""
        for models in context.models.values():
            for model in models:
                self._plan(context, model)

    def programs(self, context: PlanContext) -> list[Program]:
        """The engine's programs for each model, and the scores that guide the search."""
        greedy = [*context.models.get("models", ()), *context.models.get("prompted", ())]
        planned = [program for model in greedy for program in self._plan(context, model).programs()]
        if not self.methods:
            return planned
        guided = [method in _METHODS for method in self.methods]
        if not all(guided):
            planned += self._plan_self_reward(context)
        if not any(guided):
            return planned
        prm = self._plan(context, context.model("prm"))
        params = abstract_prm(prm.config, prm_axes(prm.config), prm.place)
        mesh = prm.place if isinstance(prm.place, Mesh) else None
        scorer = PrmScorer(prm.config, params, buckets=_prm_buckets(self), mesh=mesh)
        engine = self._plan(context, context.model("searched"), params)
        length = self.context_tokens
        guide = prm_score(prm.config, params, scorer, length, prm.place, engine.resident)
        return [*planned, *engine.programs(params), guide]

    def _plan_self_reward(self, context: PlanContext) -> list[Program]:
        policy = context.model("searched")
        judging, beside = self.plan_judges(context, policy, self.engine)
        return [*self._plan(context, policy, beside).programs(beside), *judging]

    def _plan(self, context: PlanContext, model: ModelConfig, beside: Any = ()) -> PlannedEngine:
        return plan_engine(model, self.engine, context.runtime, context.decoding_devices, beside)


def _makers(
    context: StageContext, settings: Evaluate, prompts: Sequence[Prompt]
) -> dict[str, Callable[[], list[Row]]]:
    """For each row of the table, in order, what makes the answers."""

    def greedy(folder: Path, template: str = "{prompt}") -> Callable[[], list[Row]]:
        return lambda: _greedy(
            *_engine(context, settings, folder), prompts, template, settings.max_tokens
        )

    def searched(method: str) -> Callable[[], list[Row]]:
        return lambda: _searched(context, settings, prompts, method)

    makers = {folder.name: greedy(folder) for folder in context.input_list("models")}
    if settings.prompted:
        makers["prompted"] = greedy(context.input("prompted"), settings.prompt_template)
    return makers | {method: searched(method) for method in settings.methods}


def _engine(
    context: StageContext, settings: Evaluate, folder: Path, beside: Any = ()
) -> tuple[Engine, Tokenizer]:
    engine, tokenizer, _ = load_engine(folder / "hf", settings.engine, context.runtime, beside)
    return engine, tokenizer


def _greedy(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Prompt], template: str, max_tokens: int
) -> list[Row]:
    asked = [
        dataclasses.replace(prompt, prompt=template.replace("{prompt}", prompt.prompt))
        for prompt in prompts
    ]
    answers = greedy_answers(engine, tokenizer, asked, max_tokens)
    return [
        {"id": prompt.id, "text": tokenizer.decode(answer.tokens), "tokens": len(answer.tokens)}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _searched(
    context: StageContext, settings: Evaluate, prompts: Sequence[Prompt], method: str
) -> list[Row]:
    score: Scorer
    # Before the engine, whose cache takes the memory that is left.
    scorer = _prm_scorer(context, settings) if method in _METHODS else None
    searched = context.input("searched")
    judges = Judges()
    if not scorer:
        policy = huggingface.load_config(searched / "hf")
        judges = settings.load_judges(context, policy, settings.engine)
    engine, tokenizer = _engine(context, settings, searched, judges.beside)
    if scorer:
        score = scorer
    else:
        judge = Judge(tokenizer, settings.judge, judges.sources)
        score = SelfReward(
            engine, judge, settings.reward, settings.test_time, context.seed, judges.services
        )
    search = _METHODS[method.removesuffix(_SELF_REWARD)]
    with closing(judges):
        results = search(engine, tokenizer, prompts, score, settings.test_time, context.seed)
    if unscored := sum(result.unscored for result in results):
        say(f"{context.name}: {method}: {unscored} answers and steps without a score ranked last")
    return [
        {
            "id": prompt.id,
            "text": result.text,
            "tokens": result.generated_tokens,
            "steps": result.generated_steps,
            "score": result.score,
            **({"unscored": result.unscored} if result.unscored else {}),
        }
        for prompt, result in zip(prompts, results, strict=True)
    ]


def _prm_scorer(context: StageContext, settings: Evaluate) -> PrmScorer:
    folder = context.input("prm") / "hf"
    layout = lay_out_engine(huggingface.load_config(folder), settings.engine, context.runtime)
    config, mesh = layout.config, layout.mesh
    params = {
        "model": huggingface.load_params(folder, config, mesh),
        "score": huggingface.load_score_head(folder, mesh),
    }
    return PrmScorer(config, params, buckets=_prm_buckets(settings), mesh=mesh)


def _prm_buckets(settings: Evaluate) -> tuple[int, ...]:
    return (min(256, settings.context_tokens),)
