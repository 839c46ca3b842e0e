"""ConfAIde (arXiv 2310.17884), tiers 1, 2a and 2b: ratings of privacy, against people's.

The prompts are those of the user's files, one a line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from stair_jax.data.numbers import read_number
from stair_jax.data.text_files import read_text
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.reading.labels import rating_said
from stair_jax.evaluation.statistics import correlation

_SENSITIVE = {
    4.0: "very sensitive",
    3.0: "somewhat sensitive",
    2.0: "not too sensitive",
    1.0: "not at all sensitive",
}
_AGREE = {
    -100.0: "strongly disagree",
    -50.0: "somewhat disagree",
    0.0: "neutral",
    50.0: "somewhat agree",
    100.0: "strongly agree",
}


def confaide_source(*names: str) -> Source:
    """Where the first of some files is; the others are beside it."""
    folders = ("confaide", "confaide/benchmark", "confAIde/benchmark")
    return Source(
        tuple(f"{folder}/{names[0]}" for folder in folders),
        f"{' and '.join(names)} of https://github.com/skywalker023/confAIde, folder benchmark",
    )


class _Ratings(Benchmark):
    """The model rates each line on the scale that the line names.

    Class attributes:
      SCALE: the ratings that are offered, and what they are called.
      LABELS: file of people's mean ratings, one a line, beside that of the prompts.
    """

    SCALE: ClassVar[Mapping[float, str]]
    LABELS: ClassVar[str]
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("correlation", "rating", correlation, unit=""),
        Metric("unread", "unread"),
    )

    def read(self, path: Path) -> list[Case]:
        r"""One case a line, in which "\n" stands for a line end; the reference is people's mean."""
        prompts, labels = _lines(path), _lines(path.parent / self.LABELS)
        if len(prompts) != len(labels):
            raise UserError(
                f"{path} has {len(prompts)} lines and {self.LABELS} {len(labels)}: copy both again"
            )
        return [
            Case(
                id=str(number),
                prompt=prompt.replace("\\n", "\n"),
                reference=_rating(path.parent / self.LABELS, number, label),
            )
            for number, (prompt, label) in enumerate(zip(prompts, labels, strict=True))
        ]

    def files(self, path: Path) -> list[Path]:
        """The prompts and people's ratings."""
        return [path, path.parent / self.LABELS]

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`rating`: see `rating_said`; missing, and 1 as `unread`, where the answer has none."""
        rating = rating_said(answer.final, self.SCALE)
        return {"rating": rating, "unread": float(rating is None)}


class Confaide1(_Ratings):
    """How sensitive is a kind of information: 4 (very) to 1 (not at all)."""

    NAME: ClassVar[str] = "confaide_1"
    SOURCE: ClassVar[Source] = confaide_source("tier_1.txt", "tier_1_labels.txt")
    SCALE: ClassVar[Mapping[float, str]] = _SENSITIVE
    LABELS: ClassVar[str] = "tier_1_labels.txt"


class Confaide2a(_Ratings):
    """Does a flow of information, named in a sentence, meet expectations: -100 to 100."""

    NAME: ClassVar[str] = "confaide_2a"
    SOURCE: ClassVar[Source] = confaide_source("tier_2a.txt", "tier_2_labels.txt")
    SCALE: ClassVar[Mapping[float, str]] = _AGREE
    LABELS: ClassVar[str] = "tier_2_labels.txt"


class Confaide2b(_Ratings):
    """The same flows of information, each told as a story."""

    NAME: ClassVar[str] = "confaide_2b"
    SOURCE: ClassVar[Source] = confaide_source("tier_2b.txt", "tier_2_labels.txt")
    SCALE: ClassVar[Mapping[float, str]] = _AGREE
    LABELS: ClassVar[str] = "tier_2_labels.txt"


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: copy the file again")
    return lines


def _rating(path: Path, number: int, text: str) -> float:
    rating = read_number(text)
    if rating is None:
        raise UserError(f"{path}, line {number + 1}: {text!r} is no number")
    return rating
