"""SI-MCTS with self-reward: one search tree per prompt, into `trees.jsonl.gz`."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar

from stair_jax.data.records import Prompt
from stair_jax.data.row_file import RowFile
from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.monitoring import (
    Progress,
    num_rows,
    order_samples,
    say,
    write_metrics,
)
from stair_jax.parallel.chips import GIB, memory_bytes
from stair_jax.parallel.compile_clock import compile_seconds
from stair_jax.parallel.processes import collectives
from stair_jax.planning.decoding import tree_round
from stair_jax.planning.figures import Figure
from stair_jax.planning.needs import Needs, Work
from stair_jax.planning.program import Program
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.engines import (
    DECODING_MEMORY,
    EngineSettings,
    load_engine,
)
from stair_jax.run.stage import Artifact, stage_input
from stair_jax.search.batched_trees import tree_bytes
from stair_jax.search.forced_starts import ForcedStarts, StartCounts
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.more_pairs import MorePairs
from stair_jax.search.runner import SearchReport, SearchSettings, run_search
from stair_jax.search.search_context import PRIORS, SamplingSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.settings import require, setting
from stair_jax.stages.judging_stage import Judges
from stair_jax.stages.probed_stage import ProbedStage
from stair_jax.stages.search_cluster import search_on_cluster
from stair_jax.stages.search_parts import TREES_FILE, RecordShards
from stair_jax.stages.search_probe import probe_judge
from stair_jax.stages.search_writer import TreeWriter, say_report
from stair_jax.stages.stage_needs import decoding_needs
from stair_jax.storage import fingerprint_folder

__all__ = ["TREES_FILE", "Search"]

T = TypeVar("T")
_NODE_BYTES = 300  # of a record on the disk, compressed: a step's text and tokens


@dataclass(frozen=True)
class Search(ProbedStage, SearchConfig, SamplingSettings):
    """Settings of `search`, beside those of the trees, of sampling, and of who judges.

    Attributes:
      model: the stage whose model searches, and judges where `judge.source` says "policy".
      prompts: the stage that holds `file`.
      file: JSON lines {id, prompt, kind, source}, one tree per line; with `start` behind what the
        answer is made to begin with.
      forced_starts: which answers begin wrongly, see `ForcedStarts`.
      num_prompts: the first so many of the file; 0: all.
      more_pairs: options for more pairs from the same tokens, see `MorePairs`.
      prior: of a step, the mean token probability: "arithmetic", "geometric", or "uniform" (1).
      max_prompt_tokens: rendered; longer prompts are left out.
      give_up_after: evaluations of a tree, the first ones, after which its prompt is left out where
        none of them gave a reward; 0: never.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      weights: of the layers while they search: "none": as they are; "fp8" (GPUs) or "int8" (TPUs):
        8 bits, and activations alike: cheaper, and the samples are those of a slightly other model.
      kv_dtype: of the cache: "": `dtype`; "int8" or "float8_e4m3fn": twice the tokens fit.
      samples_every: prompts from one tree to the next of which text samples are written to log,
        `samples.jsonl`, TensorBoard and W&B: the best answer, and a judgement with the replies; 0:
        none. In a run of several processes, of the prompts of the first one.
    """

    VERSION: ClassVar[int] = 2  # 2: conclusions are read in the last line alone, one output block
    MEMORY: ClassVar[tuple[str, ...]] = DECODING_MEMORY
    DEALS: ClassVar[bool] = True

    model: str = stage_input(Artifact.MODEL)
    prompts: str = stage_input(Artifact.PROMPTS, file="file")
    file: str = "prompts1.jsonl"
    num_prompts: int = setting(0, least=0)
    forced_starts: ForcedStarts = setting(ForcedStarts, absent=ForcedStarts())
    more_pairs: MorePairs = setting(MorePairs)
    prior: str = setting("arithmetic", choices=tuple(PRIORS))
    max_prompt_tokens: int = setting(2048, least=1, most=2**24)
    give_up_after: int = setting(16, least=0)
    context_tokens: int = setting(8192, least=1, most=2**24)
    dtype: str = setting("float32", choices=DTYPES)
    weights: str = setting("none", choices=("none", "fp8", "int8"))
    kv_dtype: str = setting("", choices=("", *DTYPES, "int8", "float8_e4m3fn"))
    samples_every: int = setting(0, least=0, cost=True)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        most = self.forced_starts.num_steps
        require(
            most < self.max_depth,
            f"forced_starts have {most} steps, and max_depth is {self.max_depth}: raise it, or "
            "nothing is left to search",
        )
        require(
            not self.judge.endpoint.batch.size or "endpoint" not in self.judge.used_sources,
            "judge.endpoint.batch.size is set, and a search waits for its judge at each iteration, "
            "of a batch up to a day: leave it at 0",
        )

    @property
    def search_settings(self) -> SearchSettings:
        """What the trees depend on."""
        return SearchSettings(
            tree=self._part(SearchConfig),
            sampling=self._part(SamplingSettings),
            judge=self.judge,
            more_pairs=self.more_pairs,
            prior=self.prior,
            max_prompt_tokens=self.max_prompt_tokens,
            give_up_after=self.give_up_after,
        )

    @property
    def engine(self) -> EngineSettings:
        """What the engine depends on."""
        return EngineSettings(self.context_tokens, self.dtype, self.weights, self.kv_dtype)

    def makes(self) -> Mapping[str, Artifact]:
        """Search trees."""
        return {TREES_FILE: Artifact.TREES}

    def run(self, context: StageContext) -> None:
        """Searches the prompts that have no tree yet; each tree is written as it is finished.

        Trees stand in the order in which they were finished, so readers sort them by prompt. In a
        run of several processes each searches its own part of the prompts on its own devices;
        progress is that of the first one. So are the metrics until the end, when `metrics.jsonl` is
        written anew, with a line a tree in the order of the prompts.
        """
        parts = RecordShards(context.folder, self.read_prompts(context))
        if (lost := num_rows(context.folder) - parts.num_finished) > 0:
            say(f"{context.name}: {lost} trees that were finished are gone, and are searched again")
        if context.runtime.cluster:
            report = search_on_cluster(self, context, parts)
        else:
            hf = context.input("model") / "hf"
            with closing(self.load_judges(context, hf, self.engine)) as judges:
                report = self._search(context, parts, judges)
        if (whole := parts.join(report)) is not None:
            rows = parts.metrics()
            write_metrics(context.folder, rows.values())
            order_samples(context.folder, list(rows))
            say_report(context, whole)

    def read_prompts(self, context: StageContext) -> RowFile[Prompt]:
        """The prompts as they are searched, each of which is read when its turn comes."""
        counts, most = StartCounts(), self.num_prompts or math.inf

        def begin(prompt: Prompt) -> Prompt:
            return self.forced_starts.apply(prompt, context.seed)

        def count(place: int, prompt: Prompt) -> None:
            if place < most:
                counts.add(prompt, begin(prompt))

        path = context.input("prompts") / self.file
        # The search leaves repetitions of an id out itself, and says so.
        prompts = RowFile(path, Prompt, unique_ids=False, visit=count)
        if text := counts.describe():
            say(f"{context.name}: {text}")
        return prompts[: self.num_prompts or None].map(begin)

    def _search(self, context: StageContext, parts: RecordShards, judges: Judges) -> SearchReport:
        """Probes the judge, and searches what this process has to."""
        done, hf = parts.done, context.input("model") / "hf"
        engine, tokenizer, runtime = load_engine(
            hf, judges.engine, context.runtime, judges.beside, judges.adapters
        )
        model = collectives.broadcast(fingerprint_folder(hf) if collectives.is_main() else None)
        judge = Judge(tokenizer, self.judge, judges.sources)
        is_silent = not collectives.is_main()
        progress = self.progress(context, parts, is_silent)
        report = SearchReport()
        with parts.open_metrics(is_silent) as metrics:
            driver = Driver(engine, judges.services)
            calibrate = probe_judge(context.folder, self.judge, judge, driver, context.seed, model)
            writer = TreeWriter(parts.log, metrics, len(done), engine.stats, report)
            run_search(
                parts.prompts,
                engine,
                tokenizer,
                self.search_settings,
                context.seed,
                writer.write,
                progress,
                reward=self.reward,
                trees_in_flight=runtime.trees_in_flight,
                device=runtime.tree_device,
                model=model,
                fingerprint=context.fingerprint,
                done=done,
                report=report,
                samples=writer.samples(self.samples_every),
                services=judges.services,
                sources=judges.sources,
                calibrate=calibrate,
                watch=JudgeWatch(self.judge.min_readable) if self.judge.probe else None,
            )
        progress.close()
        return report

    def progress(self, context: StageContext, parts: RecordShards, silent: bool) -> Progress:
        """The line that says how far the search is."""
        return Progress(
            context.name,
            len(parts.prompts),
            "trees",
            len(parts.done),
            silent,
            compile_seconds,
            ("iterations", self.num_iterations),
        )

    def check_cluster(self) -> None:
        """Checks that workers of a cluster can do the work of the stage."""
        self.check_dealt_judge()

    def programs(self, context: PlanContext) -> list[Program]:
        """The engine's programs, and the round of the trees where it runs on the same device."""
        devices = context.decoding_devices
        judging, beside, engine = self.plan_policy(context, self.engine)
        planned = [*engine.programs(beside), *judging]
        if context.runtime.tree_device == "host":
            return planned
        trees = engine.runtime.trees_in_flight
        config = self.search_settings.tree
        return [*planned, tree_round(config, trees, devices[0], (engine.resident, beside))]

    def needs(self, context: PlanContext, work: Work) -> Needs:
        """All iterations at the measured rate of a search; the model is read once."""
        prompts = Figure(self.num_prompts)
        if not self.num_prompts:
            prompts = work.rows_of(self.prompts, self.file, work.amounts.prompts)
        engine = self.plan_policy(context, self.engine)[2]
        needs = decoding_needs(engine, prompts * self.num_iterations, self.dtype, work)
        trees = engine.runtime.trees_in_flight * tree_bytes(self.search_settings.tree)
        disk = prompts * self._record_bytes
        return replace(
            needs,
            disk=disk,
            kept=disk,
            host=needs.host + Figure(trees),
            rows={TREES_FILE: prompts},
            work=f"{prompts.text} prompts x {self.num_iterations} iterations",
        )

    def check_devices(self, context: PlanContext) -> None:
        """Checks that the engine and the statistics of the trees fit."""
        devices = context.decoding_devices
        engine = self.plan_policy(context, self.engine)[2]
        trees, each = engine.runtime.trees_in_flight, tree_bytes(self.search_settings.tree)
        room = memory_bytes(devices[0]) / 2
        if trees * each > room:
            raise UserError(
                f"the statistics of {trees} trees take {trees * each / GIB:.1f} GiB: lower "
                f"runtime.trees_in_flight to {int(room // each)}, which would fit"
            )

    def disk_bytes(self, model: ModelConfig | None) -> int:
        """The trees of `num_prompts`, where these are counted."""
        return self.num_prompts * self._record_bytes

    @property
    def _record_bytes(self) -> int:
        """Of one tree, about."""
        return self.num_iterations * self.num_children // 4 * _NODE_BYTES

    def amount(self) -> str:
        """Prompts and iterations."""
        prompts = f"{self.num_prompts} prompts" if self.num_prompts else f"prompts of {self.file}"
        return f"{prompts}, {self.num_iterations} iterations each"

    def _part(self, cls: type[T]) -> T:
        """The settings of a base class, as an object of that class."""
        names = [info.name for info in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: getattr(self, name) for name in names})
