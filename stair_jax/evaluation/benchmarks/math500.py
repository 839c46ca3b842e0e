"""MATH-500: problems of competitions (arXiv 2103.03874, 2305.20050), answered in LaTeX."""

from pathlib import Path
from typing import ClassVar

from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.reading.latex import same_result
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places

_WORDING = "\n\nGive the result as \\boxed{...} at the end."
_LEVELS = ("1", "2", "3", "4", "5")


class Math500(Benchmark):
    """The boxed result is compared with the reference by the rules of `reading.latex`."""

    NAME: ClassVar[str] = "math500"
    SOURCE: ClassVar[Source] = Source(
        ("math500/test.jsonl", *usual_places("math500", "math500.jsonl", "math500.json")),
        "test.jsonl of https://huggingface.co/datasets/HuggingFaceH4/MATH-500 as "
        "math500/test.jsonl (columns problem, answer, level, subject)",
    )
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "right"),
        *(Metric(f"level_{level}", "right", group=level) for level in _LEVELS),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row; its group is the level, 1 to 5."""
        rows = read_rows(path, "problem", "answer", "level", "subject")
        return checked_cases(path, [_case(row) for row in rows])

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`right`: 1 or 0; an answer without a result is wrong."""
        return {"right": float(same_result(answer.final, case.reference))}


def _case(row: Row) -> Case:
    level = row.text("level").removeprefix("Level ").strip()
    if level not in _LEVELS:
        raise row.error(f"the level {level!r} is none of {', '.join(_LEVELS)}")
    return Case(
        id=str(row.number),
        prompt=row.text("problem").strip() + _WORDING,
        group=level,
        reference=row.text("answer").strip(),
        columns={"subject": row.text("subject")},
    )
