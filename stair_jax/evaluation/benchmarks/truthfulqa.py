"""TruthfulQA (arXiv 2109.07958), multiple choice: questions that many people answer wrongly."""

from pathlib import Path
from typing import ClassVar

from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.reading.likelihoods import prefers_first, share_of
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places


class TruthfulQa(Benchmark):
    """Log-likelihoods of all answers to a question, without examples before it.

    `mc1`: the best answer is likelier than each wrong one. `mc2`: share of the right answers in
    the probability of all. `binary`: the best answer is likelier than the best wrong one, which the
    authors recommend since 2025; not of files without the column "Best Incorrect Answer".
    """

    NAME: ClassVar[str] = "truthfulqa"
    SOURCE: ClassVar[Source] = Source(
        usual_places("truthfulqa", "TruthfulQA.csv"),
        "TruthfulQA.csv of https://github.com/sylinrl/TruthfulQA",
    )
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("mc2", "mc2"),
        Metric("mc1", "mc1"),
        Metric("binary", "binary"),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row: the best answer, the other right ones, then the wrong ones."""
        rows = read_rows(path, "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
        return checked_cases(path, [_case(row) for row in rows])

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`mc1`, `mc2` and `binary`, see the class; missing where likelihoods are."""
        found, right = answer.likelihoods, case.columns["right"]
        if len(found) != len(case.choices):
            return dict.fromkeys(("mc1", "mc2", "binary"))
        wrong = range(right, len(found))
        scores = {
            "mc1": prefers_first([found[0], *(found[index] for index in wrong)], _ones(wrong)),
            "mc2": share_of(found, range(right), len(found)),
        }
        best_wrong = case.columns["best_wrong"]
        if best_wrong is not None:
            scores["binary"] = prefers_first([found[0], found[best_wrong]], (1, 1))
        return scores


def _ones(wrong: range) -> list[int]:
    """Whole texts are compared: the best answer and the wrong ones."""
    return [1] * (1 + len(wrong))


def _case(row: Row) -> Case:
    right = _distinct([row.text("Best Answer"), *row.text("Correct Answers").split(";")])
    best_wrong = row.text("Best Incorrect Answer", "")
    wrong = _distinct([best_wrong, *row.text("Incorrect Answers").split(";")])
    wrong = [text for text in wrong if text not in right]
    if not wrong:
        raise row.error("all answers in 'Incorrect Answers' are right ones: repair the row")
    return Case(
        id=str(row.number),
        prompt=row.text("Question").strip(),
        group=row.text("Category", ""),
        reference=0,
        choices=(*right, *wrong),
        columns={
            "right": len(right),
            "best_wrong": len(right) if _sentence(best_wrong) == wrong[0] else None,
        },
    )


def _distinct(texts: list[str]) -> list[str]:
    """Sentences without those that come again, and empty ones."""
    return list(dict.fromkeys(filter(None, map(_sentence, texts))))


def _sentence(text: str) -> str:
    """A text that ends with a full stop; "" of nothing."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
