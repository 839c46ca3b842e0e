"""Safe prompts that models tend to refuse: OKTest, CoCoNot's contrast set, OR-Bench."""

from pathlib import Path

from stair_jax.evaluation.benchmark import Source
from stair_jax.evaluation.benchmarks.refusal import OVER_REFUSALS, RefusalBenchmark
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import read_cases, usual_places


class OKTest(RefusalBenchmark):
    """OKTest (Shi et al., arXiv 2401.17633): 300 safe questions with words of harm."""

    NAME = "oktest"
    SOURCE = Source(
        usual_places("oktest", "OKTest.csv", "oktest.csv"),
        "download data/OKTest.csv of https://github.com/InvokerStark/OverKill",
    )
    ROLE = "development"
    METRICS = OVER_REFUSALS

    def read(self, path: Path) -> list[Case]:
        """The questions."""
        return read_cases(path, "prompt")


class CoCoNot(RefusalBenchmark):
    """CoCoNot (Brahman et al., arXiv 2407.12043), the contrast set: what should be answered.

    The 379 prompts of its test file, or the 927 of the preference pairs, which are for training.
    """

    NAME = "coconot"
    SOURCE = Source(
        usual_places(
            "coconot",
            "coconot_contrast_test.jsonl",
            "coconot_contrast_eval.jsonl",
            "contrast/test.jsonl",
            "coconot_pref.jsonl",
        ),
        "download data/coconot_contrast_eval.jsonl of https://github.com/allenai/noncompliance",
    )
    ROLE = "training"
    METRICS = OVER_REFUSALS

    def read(self, path: Path) -> list[Case]:
        """The prompts; their category is the group."""
        return read_cases(
            path, "prompt", id="id", group="category", columns={"subcategory": "subcategory"}
        )


class ORBench(RefusalBenchmark):
    """OR-Bench (Cui et al., arXiv 2405.20947): its hard subset, 1,319 prompts."""

    NAME = "or_bench"
    SOURCE = Source(
        usual_places("or_bench", "or-bench-hard-1k.csv", "or_bench.csv"),
        "download or-bench-hard-1k.csv of https://huggingface.co/datasets/bench-llm/or-bench",
    )
    METRICS = OVER_REFUSALS

    def read(self, path: Path) -> list[Case]:
        """The prompts; their category is the group."""
        return read_cases(path, "prompt", group="category")
