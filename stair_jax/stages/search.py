"""SI-MCTS with self-reward (STAIR sections 3 and 4): one tree a prompt, into `trees.jsonl.gz`."""

from dataclasses import dataclass, field, fields

from stair_jax.data.prompts import read_prompts
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.planning.decoding import tree_round
from stair_jax.planning.program import Program
from stair_jax.search.records import TreeRecord
from stair_jax.search.reward import SafetyReward
from stair_jax.search.runner import SearchReport, SearchSettings, run_search
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.engines import load_engine, plan_engine
from stair_jax.stages.runtime import Runtime
from stair_jax.storage import RecordLog, fingerprint, fingerprint_folder, write_json

INPUTS = ("model", "prompts")
TREES_FILE = "trees.jsonl.gz"


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
      reward: R of helpfulness and safety, see `SafetyReward`.
    """

    model: str = ""
    prompts: str = ""
    file: str = "prompts.jsonl"
    num_prompts: int = 0
    context_tokens: int = 8192
    dtype: str = "float32"
    reward: SafetyReward = field(default_factory=SafetyReward)


def run(context: StageContext) -> None:
    """Searches the prompts that have no tree yet; each tree is written as it is finished.

    Trees stand in the order in which they were finished, so readers sort them by prompt.
    """
    own, settings = _read(context)
    prompts = read_prompts(context.input("prompts") / own.file)[: own.num_prompts or None]
    runtime = Runtime.read(context.runtime)
    log = RecordLog(context.folder / TREES_FILE)
    done = {record["id"] for record in log}
    hf = context.input("model") / "hf"
    engine, tokenizer = load_engine(hf, own.context_tokens, own.dtype, runtime)
    progress = Progress(context.name, len(prompts), "trees", done=len(done))
    with Metrics(context.folder, resume_step=len(done) if done else -1) as metrics:
        writer = _Writer(log, metrics, len(done))
        report = run_search(
            [prompt for prompt in prompts if prompt.id not in done],
            engine,
            tokenizer,
            settings,
            context.seed,
            writer.write,
            progress,
            reward=own.reward,
            trees_in_flight=runtime.trees_in_flight,
            model=fingerprint_folder(hf),
            fingerprint=fingerprint([context.settings, context.seed]),
            done=len(done),
        )
    progress.close()
    _report(context, report)


def programs(context: PlanContext) -> list[Program]:
    """The engine's programs and the round of the trees."""
    own, settings = _read(context)
    runtime = Runtime.read(context.runtime)
    model = context.model("model")
    engine = plan_engine(model, own.context_tokens, own.dtype, runtime, context.devices)
    trees = tree_round(settings.tree, runtime.trees_in_flight, context.devices[0], engine.resident)
    return [*engine.programs(scores=settings.judge.mode == "expected"), trees]


def _read(context: StageContext | PlanContext) -> tuple[SearchStageSettings, SearchSettings]:
    """The settings of the stage itself, and what the trees depend on."""
    section = dict(context.settings)
    names = [own.name for own in fields(SearchStageSettings) if own.name in section]
    own = {name: section.pop(name) for name in names}
    reward = read_settings(SafetyReward, own.get("reward", {}), f"{context.name}.reward")
    stage = read_settings(SearchStageSettings, own | {"reward": reward}, context.name)
    return stage, SearchSettings.read(section)


class _Writer:
    """Puts finished trees on the disk, and a line of metrics beside each."""

    def __init__(self, log: RecordLog, metrics: Metrics, done: int):
        self._log, self._metrics, self._done = log, metrics, done

    def write(self, record: TreeRecord) -> None:
        self._log.append(record.to_dict())
        self._done += 1
        root = record.nodes[0]
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
