"""SI-MCTS with self-reward (STAIR sections 3 and 4): one tree a prompt, into `trees.jsonl.gz`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.data.prompts import Prompt, read_prompts
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.search.records import TreeRecord
from stair_jax.search.reward import SafetyReward
from stair_jax.search.runner import SearchReport, SearchSettings, run_search
from stair_jax.settings import read_settings
from stair_jax.stages.context import StageContext
from stair_jax.stages.engines import load_engine
from stair_jax.storage import RecordLog, fingerprint, fingerprint_folder, write_json

INPUTS = ("model", "prompts")
TREES_FILE = "trees.jsonl.gz"
_OWN_FIELDS = ("model", "prompts", "file", "num_prompts", "context_tokens", "dtype", "reward")


def run(context: StageContext) -> None:
    """Searches the prompts that have no tree yet; each tree is written as it is finished.

    Trees stand in the order in which they were finished, so readers sort them by prompt.
    """
    section = dict(context.settings)
    own = {name: section.pop(name) for name in _OWN_FIELDS if name in section}
    settings = SearchSettings.read(section)
    reward = read_settings(SafetyReward, own.get("reward", {}), f"{context.name}.reward")
    prompts = search_prompts(context.input("prompts"), own)
    log = RecordLog(context.folder / TREES_FILE)
    done = {record["id"] for record in log}
    hf = context.input("model") / "hf"
    engine, tokenizer = load_engine(
        hf, own.get("context_tokens", 8192), own.get("dtype", "float32"), context.runtime
    )
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
            reward=reward,
            trees_in_flight=context.runtime.get("trees_in_flight", 64),
            model=fingerprint_folder(hf),
            fingerprint=fingerprint([context.settings, context.seed]),
            done=len(done),
        )
    progress.close()
    _report(context, report)


def search_prompts(folder: Path, settings: Mapping[str, Any]) -> list[Prompt]:
    """The first `num_prompts` prompts (0: all) of the settings' `file`, in its order."""
    prompts = read_prompts(folder / settings.get("file", "prompts.jsonl"))
    return prompts[: settings.get("num_prompts", 0) or None]


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
