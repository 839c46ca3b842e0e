"""Evaluation on the pocket world: a table with a row a model, and what lies behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from stair_jax import storage
from stair_jax.data.prompts import Prompt
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, run_all
from stair_jax.evaluation import pocket as benchmark
from stair_jax.inference.beam_search import beam_search
from stair_jax.inference.best_of_n import best_of_n
from stair_jax.inference.candidates import Score, TestTimeSettings, end_ids
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import Progress
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.decoding import EnginePlan, prm_score
from stair_jax.planning.program import Program
from stair_jax.search.judge import Judge, JudgeSettings
from stair_jax.search.reward import SafetyReward
from stair_jax.settings import read_settings, require
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.engines import configure, decoding_mesh, load_engine, plan_engine
from stair_jax.stages.prm import prm_axes
from stair_jax.stages.runtime import Runtime
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

INPUTS = ("data", "models", "prompted", "searched", "prm")
PROCESSES = "first"
_METHODS = {"best_of_n": best_of_n, "beam_search": beam_search}
Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of `evaluate`.

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
      judge: of self-reward, see `JudgeSettings`.
      reward: of self-reward, see `SafetyReward`.
      max_tokens: of a greedy answer.
      context_tokens: most tokens of a sequence.
      dtype: of weights and activations.
    """

    data: str = ""
    models: tuple[str, ...] = ()
    prompted: str = ""
    prompt_template: str = "{prompt}"
    searched: str = ""
    methods: tuple[str, ...] = ()
    prm: str = ""
    test_time: TestTimeSettings = field(default_factory=TestTimeSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    reward: SafetyReward = field(default_factory=SafetyReward)
    max_tokens: int = 4096
    context_tokens: int = 8192
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        known = [method + guide for method in _METHODS for guide in ("", "_self_reward")]
        for method in self.methods:
            require(method in known, f"methods: {method!r} is none of {', '.join(known)}")
        guided = any(method in _METHODS for method in self.methods)
        require(bool(self.prm) or not guided, "prm is empty: name the stage that guides the search")
        require(
            bool(self.searched) or not self.methods,
            "searched is empty: name the stage that searches",
        )
        require("{prompt}" in self.prompt_template, "prompt_template must hold {prompt}")


def run(context: StageContext) -> None:
    """Writes `answers/ROW.jsonl` a row, then `details.json` and `table.json`."""
    settings = _read(context)
    rows = storage.read_jsonl(context.input("data") / "evaluation.jsonl")
    prompts = [Prompt(row["id"], row["prompt"], row["kind"], row["source"]) for row in rows]
    makers = _makers(context, settings, prompts)
    progress = Progress(context.name, len(makers), "models")
    table, details = [], {}
    for name, make in makers.items():
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


def summary(folder: Path) -> str:
    """The table of a finished evaluation."""
    return benchmark.format_table(storage.read_json(folder / "table.json"))


def _read(context: StageContext | PlanContext) -> EvaluateSettings:
    section = dict(context.settings)
    for name, part in (
        ("test_time", TestTimeSettings),
        ("judge", JudgeSettings),
        ("reward", SafetyReward),
    ):
        section[name] = read_settings(part, section.get(name, {}), f"{context.name}.{name}")
    return read_settings(EvaluateSettings, section, context.name)


def _makers(
    context: StageContext, settings: EvaluateSettings, prompts: Sequence[Prompt]
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
    context: StageContext, settings: EvaluateSettings, folder: Path
) -> tuple[Engine, Tokenizer]:
    runtime = Runtime.read(context.runtime)
    return load_engine(folder / "hf", settings.context_tokens, settings.dtype, runtime)


def _greedy(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Prompt], template: str, max_tokens: int
) -> list[Row]:
    sampling = Sampling(
        temperature=0.0, top_k=1, top_p=1.0, max_tokens=max_tokens, stop_ids=end_ids(tokenizer)
    )
    requests = [
        Request(
            prompt.id,
            tuple(encode_prompt(tokenizer, template.replace("{prompt}", prompt.prompt))),
            sampling=sampling,
        )
        for prompt in prompts
    ]
    completions = run_all(engine, requests)
    return [
        {
            "id": prompt.id,
            "text": tokenizer.decode(completions[prompt.id].tokens),
            "tokens": len(completions[prompt.id].tokens),
        }
        for prompt in prompts
    ]


def _searched(
    context: StageContext, settings: EvaluateSettings, prompts: Sequence[Prompt], method: str
) -> list[Row]:
    score: Score
    # Before the engine, whose cache takes the memory that is left.
    scorer = _prm_scorer(context, settings) if method in _METHODS else None
    engine, tokenizer = _engine(context, settings, context.input("searched"))
    if scorer:
        score = scorer
    else:
        judge = Judge(tokenizer, settings.judge)
        score = SelfReward(engine, judge, settings.reward, settings.test_time, context.seed)
    search = _METHODS[method.removesuffix("_self_reward")]
    results = search(engine, tokenizer, prompts, score, settings.test_time, context.seed)
    return [
        {
            "id": prompt.id,
            "text": result.text,
            "tokens": result.generated_tokens,
            "steps": result.generated_steps,
            "score": result.score,
        }
        for prompt, result in zip(prompts, results, strict=True)
    ]


def _prm_scorer(context: StageContext, settings: EvaluateSettings) -> PrmScorer:
    folder = context.input("prm") / "hf"
    runtime = Runtime.read(context.runtime)
    mesh = decoding_mesh(runtime)
    config = configure(huggingface.load_config(folder), settings.dtype, runtime, mesh)
    params = {
        "model": huggingface.load_params(folder, config, mesh),
        "score": huggingface.load_score_head(folder, mesh),
    }
    return PrmScorer(config, params, buckets=_prm_buckets(settings), mesh=mesh)


def _prm_buckets(settings: EvaluateSettings) -> tuple[int, ...]:
    return (min(256, settings.context_tokens),)


def programs(context: PlanContext) -> list[Program]:
    """The engine's programs for each model, and the scores that guide the search."""
    settings = _read(context)
    runtime = Runtime.read(context.runtime)

    def plan(model: ModelConfig, beside: Any = ()) -> EnginePlan:
        sizes = (settings.context_tokens, settings.dtype)
        return plan_engine(model, *sizes, runtime, context.devices, beside=beside)

    greedy = [*context.models.get("models", ()), *context.models.get("prompted", ())]
    planned = [program for model in greedy for program in plan(model).programs()]
    if not settings.methods:
        return planned
    if not any(method in _METHODS for method in settings.methods):
        return [*planned, *plan(context.model("searched")).programs()]
    prm = plan(context.model("prm"))
    params = abstract_prm(prm.config, prm_axes(prm.config), prm.place)
    mesh = prm.place if isinstance(prm.place, Mesh) else None
    scorer = PrmScorer(prm.config, params, buckets=_prm_buckets(settings), mesh=mesh)
    engine = plan(context.model("searched"), params)
    length = settings.context_tokens
    guide = prm_score(prm.config, params, scorer, length, prm.place, engine.resident)
    return [*planned, *engine.programs(params), guide]
