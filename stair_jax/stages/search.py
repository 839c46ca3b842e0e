"""SI-MCTS with self-reward (STAIR sections 3 and 4): one tree a prompt, into `trees.jsonl.gz`."""

import time
from dataclasses import dataclass, field, fields
from pathlib import Path

from stair_jax.data.prompts import Prompt, read_rows
from stair_jax.decoding.requests import EngineStats
from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.parallel import distributed
from stair_jax.planning.decoding import tree_round
from stair_jax.planning.program import Program
from stair_jax.search.records import TreeRecord
from stair_jax.search.reward import SafetyReward
from stair_jax.search.runner import SearchReport, SearchSettings, run_search
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.engines import load_engine, plan_engine
from stair_jax.stages.runtime import Runtime
from stair_jax.stages.search_parts import TREES_FILE, Parts
from stair_jax.storage import RecordLog, fingerprint, fingerprint_folder, write_json

__all__ = ["INPUTS", "TREES_FILE", "SearchStageSettings", "programs", "run"]

INPUTS = ("model", "prompts")


@dataclass(frozen=True)
class SearchStageSettings:
    """Settings of `search`, besides those of `SearchSettings`, which stand in the same section.

    Attributes:
      model: the stage whose model searches and judges.
      prompts: the stage that holds `file`.
      file: JSON lines {id, prompt, kind, source}, one tree a line.
      num_prompts: the first so many of the file; 0: all.
      context_tokens: most tokens of a sequence, prompt and answer.
      dtype: of weights and activations.
      weights: of the layers while they search: "none": as they are; "fp8" (GPUs) or "int8" (TPUs):
        8 bits, and activations alike: cheaper, and the samples are those of a slightly other model.
      kv_dtype: of the cache: "": `dtype`; "int8" or "float8_e4m3fn": twice the tokens fit.
      reward: R of helpfulness and safety, see `SafetyReward`.
    """

    model: str = ""
    prompts: str = ""
    file: str = "prompts.jsonl"
    num_prompts: int = 0
    context_tokens: int = 8192
    dtype: str = "float32"
    weights: str = "none"
    kv_dtype: str = ""
    reward: SafetyReward = field(default_factory=SafetyReward)


def run(context: StageContext) -> None:
    """Searches the prompts that have no tree yet; each tree is written as it is finished.

    Trees stand in the order in which they were finished, so readers sort them by prompt. In a run
    of several processes each searches its own part of the prompts on its own devices; metrics and
    progress are those of the first one.
    """
    own, settings = _read(context)
    prompts = _read_prompts(context.input("prompts") / own.file)[: own.num_prompts or None]
    runtime = Runtime.read(context.runtime)
    parts = Parts(context.folder, prompts)
    done = parts.done
    hf = context.input("model") / "hf"
    sizes = (own.context_tokens, own.dtype, runtime)
    engine, tokenizer = load_engine(hf, *sizes, weights=own.weights, kv_dtype=own.kv_dtype)
    is_silent = not distributed.is_main()
    progress = Progress(context.name, len(parts.prompts), "trees", len(done), silent=is_silent)
    resume_step = len(done) if done else -1
    with Metrics(context.folder, resume_step, silent=is_silent) as metrics:
        writer = _Writer(parts.log, metrics, len(done), engine.stats)
        report = run_search(
            parts.prompts,
            engine,
            tokenizer,
            settings,
            context.seed,
            writer.write,
            progress,
            reward=own.reward,
            trees_in_flight=runtime.trees_in_flight,
            device=runtime.tree_device,
            model=distributed.broadcast(fingerprint_folder(hf) if distributed.is_main() else None),
            fingerprint=fingerprint([context.settings, context.seed]),
            done=done,
        )
    progress.close()
    if (whole := parts.join(report)) is not None:
        _report(context, whole)


def programs(context: PlanContext) -> list[Program]:
    """The engine's programs, and the round of the trees where it runs on the same device."""
    own, settings = _read(context)
    runtime = Runtime.read(context.runtime)
    model = context.model("model")
    sizes = (own.context_tokens, own.dtype, runtime, context.devices)
    engine = plan_engine(model, *sizes, weights=own.weights, kv_dtype=own.kv_dtype)
    planned = engine.programs()
    if runtime.tree_device == "host":
        return planned
    trees = tree_round(settings.tree, runtime.trees_in_flight, context.devices[0], engine.resident)
    return [*planned, trees]


def _read(context: StageContext | PlanContext) -> tuple[SearchStageSettings, SearchSettings]:
    """The settings of the stage itself, and what the trees depend on."""
    section = dict(context.settings)
    names = [own.name for own in fields(SearchStageSettings) if own.name in section]
    own = {name: section.pop(name) for name in names}
    reward = read_settings(SafetyReward, own.get("reward", {}), f"{context.name}.reward")
    stage = read_settings(SearchStageSettings, own | {"reward": reward}, context.name)
    return stage, SearchSettings.read(section)


def _read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file; ids may come again, as the search leaves repetitions out itself.

    Raises:
      UserError: names the line that lacks a column.
    """
    rows = read_rows(path, ("prompt", "kind", "source"))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("id"), str):
            raise UserError(f"{path}, line {number}, lacks the column 'id': it must be text")
    return [Prompt(row["id"], row["prompt"], row["kind"], row["source"]) for row in rows]


class _Writer:
    """Puts finished trees on the disk, and a line of metrics beside each.

    The rates of a line, and the counts of the engine, are those since this start of the stage.
    """

    def __init__(self, log: RecordLog, metrics: Metrics, done: int, stats: EngineStats):
        self._log, self._metrics, self._stats = log, metrics, stats
        self._done = self._done_before = done
        self._start = time.monotonic()

    def write(self, record: TreeRecord) -> None:
        self._log.append(record.to_dict())
        self._done += 1
        root, stats = record.nodes[0], self._stats
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._metrics.write(
            self._done,
            {
                "value": float("nan") if root.value is None else root.value,
                "nodes": len(record.nodes),
                "depth": max(node.depth for node in record.nodes),
                "missing": root.missing,
                "malformed": record.counts.get("malformed", 0),
                "unreadable": record.counts.get("unreadable", 0),
                "generated_tokens": record.generated_tokens,
                "seconds": record.seconds,
                "trees_per_hour": 3600 * (self._done - self._done_before) / seconds,
                "tokens_per_second": stats.generated / seconds,
                "hit_rate": stats.hit_rate,
                "occupancy": stats.occupancy,
                "evicted": stats.evicted,
                "preempted": stats.preempted,
            },
        )


def _report(context: StageContext, report: SearchReport) -> None:
    """Writes down and says which prompts were left out, and what the trees came to."""
    write_json(
        context.folder / "skipped.json",
        [{"id": id, "reason": reason} for id, reason in report.skipped],
    )
    for id, reason in report.skipped[:5]:
        say(f"{context.name}: prompt {id} left out: {reason}")
    if len(report.skipped) > 5:
        say(f"{context.name}: {len(report.skipped)} prompts left out in all (skipped.json)")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(report.counts.items()))
    say(f"{context.name}: {report.trees} trees, {report.generated_tokens} tokens; {counts}")
    engine = report.engine
    say(
        f"{context.name}: {engine.hit_rate:.1%} of the prompts' tokens were in the cache, "
        f"{engine.occupancy:.1%} of the slots busy; {engine.evicted} sequences evicted, "
        f"{engine.preempted} requests put back"
    )
