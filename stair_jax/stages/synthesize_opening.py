"""What `synthesize` opens before it asks: models, endpoints, judges."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.endpoints.service import EndpointService
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.run.engines import load_engine
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.prefixes import JudgePrefixes
from stair_jax.stages.judging_stage import ENDPOINT_SERVICE, Judges
from stair_jax.stages.search_probe import probe_judge
from stair_jax.stages.synthesize_teacher import TEACHER_SERVICE, open_teacher
from stair_jax.storage import fingerprint_folder
from stair_jax.synthesis.categories import Categories, ChosenCategories, KnownCategories
from stair_jax.synthesis.endpoint_writer import EndpointWriter
from stair_jax.synthesis.policies import policies_of
from stair_jax.synthesis.prompt_task import Means
from stair_jax.synthesis.writers import LocalWriter, Writer
from stair_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from stair_jax.stages.synthesize import Synthesize


@dataclass(frozen=True)
class Opened:
    """What answers and judges.

    Attributes:
      driver: over all of it.
      means: what the tasks of all prompts share.
      engine: of the local model.
      endpoints: that cost money, by who is behind them.
    """

    driver: Driver
    means: Means
    engine: Engine | NoEngine
    endpoints: Mapping[str, EndpointService]


def open_means(
    context: StageContext,
    stage: "Synthesize",
    prompts: Sequence[SynthesisPrompt],
    stack: ExitStack,
) -> Opened:
    """Loads what the stage asks, and probes its judge.

    Args:
      context: of the stage.
      stage: its settings.
      prompts: to be answered.
      stack: closes what is open.
    """
    hf = context.input("model") / "hf" if stage.model else None
    judges = stage.load_judges(context, hf, stage.engine)
    stack.callback(judges.close)
    engine, tokenizer = _load(context, hf, judges)
    policies = policies_of(stage)
    services = dict(judges.services)
    writer: Writer
    if stage.is_taught:
        writer = EndpointWriter(TEACHER_SERVICE, stage, policies, context.seed)
        service = open_teacher(context, stage, prompts, writer)
        services[TEACHER_SERVICE] = stack.enter_context(service)
    else:
        assert isinstance(engine, Engine) and tokenizer is not None
        keeps_tokens = stage.pairs == "best_worst"
        writer = LocalWriter(engine, tokenizer, stage, policies, context.seed, keeps_tokens)
    driver = Driver(engine, services)
    judge = _probed(context, stage, hf, driver, tokenizer, judges)
    prefixes = JudgePrefixes(engine, judge, judges.services)
    categories = _categories(stage, tokenizer, policies, driver)
    is_given = stage.pairs == "given_own"
    means = Means(categories, writer, judge, prefixes, stage.reward, stage, context.seed, is_given)
    names = {TEACHER_SERVICE: "teacher", ENDPOINT_SERVICE: "judge"}
    paid = {
        names[name]: each for name, each in services.items() if isinstance(each, EndpointService)
    }
    return Opened(driver, means, engine, paid)


def _load(
    context: StageContext, hf: Path | None, judges: Judges
) -> tuple[Engine | NoEngine, Tokenizer | None]:
    """The engine of the stage's model, where it has one."""
    if hf is None:
        return NoEngine(), None
    engine, tokenizer, _ = load_engine(
        hf, judges.engine, context.runtime, judges.beside, judges.adapters
    )
    return engine, tokenizer


def _probed(
    context: StageContext,
    stage: "Synthesize",
    hf: Path | None,
    driver: Driver,
    tokenizer: Tokenizer | None,
    judges: Judges,
) -> Judge:
    """The judge, calibrated where the settings say so."""
    judge = Judge(tokenizer, stage.judge, judges.sources)
    if not stage.judge.probe:
        return judge
    model = fingerprint_folder(hf) if hf is not None and collectives.is_main() else ""
    calibrate = probe_judge(
        context.folder, stage.judge, judge, driver, context.seed, model, "synthesize"
    )
    return Judge(tokenizer, stage.judge, judges.sources, calibrate)


def _categories(
    stage: "Synthesize",
    tokenizer: Tokenizer | None,
    policies: Mapping[str, str],
    driver: Driver,
) -> Categories:
    """Those that the rows say, or that the model chooses."""
    if stage.chooses_categories:
        assert tokenizer is not None
        return ChosenCategories(tokenizer, policies, driver)
    return KnownCategories(stage.categories, policies)
