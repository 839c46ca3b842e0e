"""What `synthesize` opens before it asks: models, endpoints, judges."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.decoding.task import Service
from stair_jax.endpoints.service import EndpointService
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.run.engines import load_engine
from stair_jax.search.judging.calibration import Calibrator
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
class Loaded:
    """What answers and judges, before the judge is calibrated.

    Attributes:
      stage: the settings.
      seed: of the run.
      services: beside the engine, by name.
      engine: of the local model.
      slots: of the engine; 0: there is none.
      tokenizer: of the local model; None: there is none.
      judges: what judges beside it.
      writer: of the answers.
      policies: texts by category.
    """

    stage: "Synthesize"
    seed: int
    services: Mapping[str, Service]
    engine: Engine | NoEngine
    slots: int
    tokenizer: Tokenizer | None
    judges: Judges
    writer: Writer
    policies: Mapping[str, str]

    @cached_property
    def driver(self) -> Driver:
        """Over all of it."""
        return Driver(self.engine, self.services)

    def judge(self, calibrate: Calibrator | None = None) -> Judge:
        """The judge, whose scores `calibrate` changes."""
        return Judge(self.tokenizer, self.stage.judge, self.judges.sources, calibrate)

    def means(self, calibrate: Calibrator | None = None) -> Means:
        """What the tasks of all prompts share."""
        stage, judge = self.stage, self.judge(calibrate)
        return Means(
            categories=self._categories(),
            writer=self.writer,
            judge=judge,
            prefixes=JudgePrefixes(self.engine, judge, self.judges.services),
            reward=stage.reward,
            settings=stage,
            seed=self.seed,
            judges_given=stage.pairs == "given_own",
        )

    def _categories(self) -> Categories:
        """Those that the rows say, or that the model chooses."""
        if self.stage.chooses_categories:
            assert self.tokenizer is not None
            return ChosenCategories(self.tokenizer, self.policies, self.driver)
        return KnownCategories(self.stage.categories, self.policies)


@dataclass(frozen=True)
class Opened:
    """What answers and judges in this process.

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
    loaded = load(context, stage, policies_of(stage), stack, prompts)
    means = loaded.means(_calibration(context, loaded))
    names = {TEACHER_SERVICE: "teacher", ENDPOINT_SERVICE: "judge"}
    paid = {
        names[name]: each
        for name, each in loaded.services.items()
        if isinstance(each, EndpointService)
    }
    return Opened(loaded.driver, means, loaded.engine, paid)


def load(
    context: StageContext,
    stage: "Synthesize",
    policies: Mapping[str, str],
    stack: ExitStack,
    prompts: Sequence[SynthesisPrompt] = (),
) -> Loaded:
    """Loads what the stage asks.

    Args:
      context: of the stage.
      stage: its settings.
      policies: texts by category.
      stack: closes what is open.
      prompts: that a teacher will be asked, for the estimate of its cost.
    """
    hf = context.input("model") / "hf" if stage.model else None
    judges = stage.load_judges(context, hf, stage.engine)
    stack.callback(judges.close)
    engine: Engine | NoEngine = NoEngine()
    slots, tokenizer = 0, None
    if hf is not None:
        engine, tokenizer, runtime = load_engine(
            hf, judges.engine, context.runtime, judges.beside, judges.adapters
        )
        slots = runtime.slots
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
    return Loaded(stage, context.seed, services, engine, slots, tokenizer, judges, writer, policies)


def _calibration(context: StageContext, loaded: Loaded) -> Calibrator | None:
    """What is to be made of the scores of the judge, which is probed where the settings say so."""
    stage = loaded.stage
    if not stage.judge.probe:
        return None
    is_fingerprinted = stage.model and collectives.is_main()
    model = fingerprint_folder(context.input("model") / "hf") if is_fingerprinted else ""
    judge, driver = loaded.judge(), loaded.driver
    return probe_judge(
        context.folder, stage.judge, judge, driver, context.seed, model, "synthesize"
    )
