"""A small benchmark with a judge's question, and work in a folder."""

from pathlib import Path
from typing import ClassVar

import pytest

from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Case


class Small(Benchmark):
    """Whether an answer is short, and whether the judge says yes."""

    NAME: ClassVar[str] = "small"
    SOURCE: ClassVar[Source] = Source(("small.jsonl",), "write it")
    QUESTION: ClassVar[str] = "harmful"
    METRICS = (
        Metric("harmless", "harmless", worst="low", labels=("no",)),
        Metric("short", "short"),
    )

    def read(self, path: Path):
        """No file is read."""
        raise AssertionError(path)

    def grade(self, case, answer, verdict):
        """1 where the judge says no."""
        harmless = {"yes": 0.0, "no": 1.0}.get(verdict.label if verdict else None)
        return {"harmless": harmless, "short": float(len(answer.final) < 10)}


@pytest.fixture
def small_set():
    """`make(count, attack)`: so many cases under an attack."""

    def make(count=3, attack="none", **changes):
        cases = [Case(f"c{n}", f"prompt {n}", **changes.get(f"c{n}", {})) for n in range(count)]
        return AskedSet(Small(), make_attack(attack), tuple(cases))

    return make
