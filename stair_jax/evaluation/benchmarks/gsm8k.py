"""GSM8K (arXiv 2110.14168): word problems whose answer is a number."""

from pathlib import Path
from typing import ClassVar

from stair_jax.data.numbers import read_number
from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places
from stair_jax.search.judging.sources.checkable_answers import is_right


class Gsm8k(Benchmark):
    """The question as it is, without examples; the number of the final answer is compared.

    An answer without a number is wrong, not missing.
    """

    NAME: ClassVar[str] = "gsm8k"
    SOURCE: ClassVar[Source] = Source(
        ("gsm8k/test.jsonl", *usual_places("gsm8k", "gsm8k_test.jsonl")),
        "test.jsonl of https://github.com/openai/grade-school-math (columns question, answer)",
    )
    METRICS: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "right"),)

    def read(self, path: Path) -> list[Case]:
        """One case a row; the reference is the number behind "####"."""
        cases = [
            Case(str(row.number), row.text("question").strip(), reference=_gold(row))
            for row in read_rows(path, "question", "answer")
        ]
        return checked_cases(path, cases)

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`right`: 1 or 0."""
        return {"right": float(is_right(answer.final, case.reference))}


def _gold(row: Row) -> str:
    """The number at the end of a solution, without commas and "$"."""
    _, mark, number = row.text("answer").rpartition("####")
    plain = number.replace(",", "").replace("$", "").strip()
    if not mark or read_number(plain) is None:
        raise row.error("the column 'answer' does not end with #### and a number")
    return plain
