"""Many trees in one process: memory, file descriptors, threads and objects do not grow.

Half of the trees belong to many short searches, half to a long one. The searches are those of a
run, including the file of trees, with a scripted engine (benchmarks/scripted.py) instead of a
model. Resource usage is sampled every few trees. The first quarter of the samples, during which
caches fill, does not count.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.script import Lengths, Script, Spread, judge_template, scripted_prompts
from benchmarks.scripted import OverlayEngine, instant_engine
from soak.result import Result
from soak.usage import UsageSamples
from stair_jax import pocket
from stair_jax.decoding.requests import Request
from stair_jax.monitoring import Progress
from stair_jax.record_log import RecordLog
from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.runner import run_search
from stair_jax.search.search_context import SamplingSettings
from stair_jax.search.settings import SearchSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.search.tree_records import TreeRecord
from stair_jax.text.chat import prepare_tokenizer

_TREES = 5  # of a short search, and between two samples
_IN_FLIGHT = 3
_WARM = 0.25  # share of the samples that do not count
_LENGTHS = Lengths(
    Spread(16, 4, 10), Spread(14, 2, 12), ends=(0.0, 0.4, 0.7)
)  # in tokens of the pocket world
_MEMORY = 20.0  # MB of growth that is allowed in total
_MEMORY_PER_TREE = 0.01  # MB of growth that is allowed per tree; a leaked record would exceed it
_OBJECTS = 500  # fluctuation between samples: trees in progress
_OBJECTS_PER_TREE = 0.1


def run(size: int, seed: int, folder: Path) -> Result:
    """Grows `size` trees, or a few more; the first search has the seed `seed`."""
    result = Result("growth")
    script = Script(prepare_tokenizer(Path(*pocket.__path__) / "base"), _LENGTHS)
    log = RecordLog(folder / "trees.jsonl.gz")
    num_samples = max(4, -(-size // (2 * _TREES)))
    progress = Progress("growth", 2 * num_samples * _TREES, "trees")

    for name, searches in (("many_searches", num_samples), ("one_search", 1)):
        samples = UsageSamples(num_samples)

        def write(record: TreeRecord, samples: UsageSamples = samples) -> None:
            log.append(record.to_dict())
            result.counts["trees"] += 1
            progress.update(result.counts["trees"])
            if result.counts["trees"] % _TREES == 0:
                samples.take()

        for number in range(searches):
            _search(script, num_samples * _TREES // searches, seed + number, write)
        _compare(result, name, samples, seed)
    progress.close()
    return result


def _settings(script: Script) -> SearchSettings:
    template = judge_template(script, 20)
    return SearchSettings(
        tree=SearchConfig(num_iterations=16),
        sampling=SamplingSettings(max_step_tokens=40, max_answer_tokens=120),
        judge=JudgeSettings(
            mode="generative",
            helpfulness_template=template,
            safety_template=template,
            fence=False,  # a prompt and a reply of scripted lengths, and nothing else
            ask_closing=False,
            max_tokens=40,
        ),
    )


def _search(script: Script, trees: int, seed: int, on_tree: Callable[[TreeRecord], None]) -> None:
    """One search with a new engine."""
    engine = instant_engine()
    engine.seen = _Forgetful()  # the engine keeps all requests there, for tests
    run_search(
        scripted_prompts(script, trees, 10),
        OverlayEngine(engine, script),
        script.tokenizer,
        _settings(script),
        seed,
        on_tree,
        reward=SafetyReward(),
        trees_in_flight=_IN_FLIGHT,
    )


class _Forgetful(list[Request]):
    """A list that stays empty."""

    def append(self, request: Request) -> None:
        """Does nothing."""


def _compare(result: Result, name: str, samples: UsageSamples, seed: int) -> None:
    """Adds the first and last sample as figures, and a failure for each resource that grew."""
    later = samples.after(_WARM)
    trees = _TREES * (len(later["objects"]) - 1)
    for kind, values in later.items():
        first, last = float(values[0]), float(values[-1])
        result.figures[f"{name}_{kind}"] = f"{first:.7g}, {last:.7g} after {trees} more trees"
        if kind == "memory_mb":
            grew = last - first > _MEMORY + _MEMORY_PER_TREE * trees
        elif kind == "objects":
            grew = _slope(values) * len(values) > _OBJECTS + _OBJECTS_PER_TREE * trees
        else:
            grew = last > first
        if grew:
            what = f"{name}: {kind} grew from {first:.7g} to {last:.7g}"
            result.fail(what, seed, size=result.counts["trees"])


def _slope(values: np.ndarray) -> float:
    """Slope of the least-squares line through `values`, per value."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])
