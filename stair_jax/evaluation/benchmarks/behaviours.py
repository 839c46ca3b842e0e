"""Harmful behaviours with the beginning of an answer that complies: AdvBench, JailbreakBench.

`Case.columns["target"]` is that beginning, for attacks that prefill it or optimize towards it.
"""

from pathlib import Path

from stair_jax.evaluation.benchmark import Source
from stair_jax.evaluation.benchmarks.harmful import HarmfulBenchmark
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import read_cases, usual_places


class AdvBench(HarmfulBenchmark):
    """AdvBench (Zou et al., arXiv 2307.15043): 520 behaviours, usual as prompts of training."""

    NAME = "advbench"
    SOURCE = Source(
        usual_places("advbench", "harmful_behaviors.csv", "advbench.csv"),
        "download data/advbench/harmful_behaviors.csv of "
        "https://github.com/llm-attacks/llm-attacks",
    )
    ROLE = "training"

    def read(self, path: Path) -> list[Case]:
        """The behaviours, with their targets."""
        return read_cases(path, "goal", columns={"target": "target"})


class JailbreakBench(HarmfulBenchmark):
    """JailbreakBench (Chao et al., arXiv 2404.01318): 100 behaviours in ten categories."""

    NAME = "jailbreakbench"
    SOURCE = Source(
        # not harmful_behaviors.csv, which without a folder is AdvBench
        usual_places("jailbreakbench", "harmful-behaviors.csv", "jailbreakbench.csv"),
        "download data/harmful-behaviors.csv of "
        "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors",
    )

    def read(self, path: Path) -> list[Case]:
        """The behaviours, with their targets; their category is the group."""
        columns = {"target": "Target", "behaviour": "Behavior"}
        return read_cases(path, "Goal", group="Category", columns=columns)
