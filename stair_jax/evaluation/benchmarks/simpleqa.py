"""SimpleQA (arXiv 2411.04368): short questions about facts, with one answer each."""

import ast
from pathlib import Path
from typing import ClassVar

from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places
from stair_jax.evaluation.statistics import ratio_to


class SimpleQa(Benchmark):
    """The question as it is; a judge says correct, incorrect or not attempted.

    `accuracy_attempted` is the number of correct answers divided by that of attempted ones, so that
    a model gains nothing there by guessing, nor by attempting little.
    """

    NAME: ClassVar[str] = "simpleqa"
    SOURCE: ClassVar[Source] = Source(
        usual_places("simpleqa", "simple_qa_test_set.csv", "simpleqa.csv"),
        "simple_qa_test_set.csv of https://github.com/openai/simple-evals (columns metadata, "
        "problem, answer)",
    )
    QUESTION: ClassVar[str] = "correctness"
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "correct", labels=("correct",)),
        Metric("accuracy_attempted", "correct", ratio_to("attempted")),
        Metric("attempted", "attempted", labels=("correct", "incorrect")),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row; its group is the topic."""
        cases = [
            Case(
                id=str(row.number),
                prompt=row.text("problem").strip(),
                group=_topic(row),
                reference=row.text("answer").strip(),
            )
            for row in read_rows(path, "problem", "answer")
        ]
        return checked_cases(path, cases)

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`correct` and `attempted`: 1 or 0; both missing where the verdict is."""
        label = verdict.label if verdict else None
        if label is None:
            return {"correct": None, "attempted": None}
        return {"correct": float(label == "correct"), "attempted": float(label != "not_attempted")}


def _topic(row: Row) -> str:
    """The topic in `metadata`, which the file writes as a Python literal; "": there is none."""
    metadata = row.value("metadata")
    if isinstance(metadata, str):
        try:
            metadata = ast.literal_eval(metadata)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ""
    topic = metadata.get("topic") if isinstance(metadata, dict) else None
    return topic if isinstance(topic, str) else ""
