"""What every benchmark has in common: where its rows are, what it asks, how it grades."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.judges.judge import Material, Verdict
from stair_jax.evaluation.statistics import Statistic, mean

Role = Literal["reported", "development", "training"]


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
      name: of the column.
      key: of the number in `Graded.scores`.
      statistic: what is made of the numbers, see `statistics`.
      worst: which number counts where an attack has several answers to a case: "low", "high"; None:
        their mean.
      group: of this group alone; "": all cases.
      unit: of the figure: "share" (of 1), "percent", "tokens", ... ; "": a plain number.
      labels: of the judge's verdicts, those for which the number is 1 and not 0, so that the share
        can be corrected by the judge's own error; (): there is no such correction.
    """

    name: str
    key: str
    statistic: Statistic = mean
    worst: Literal["low", "high"] | None = None
    group: str = ""
    unit: str = "share"
    labels: tuple[str, ...] = ()


REFUSAL = "refusal"  # the question that answers to harmful prompts can be asked as well
METRICS_OF_REFUSALS = (
    Metric("refusals", "refused", worst="low", labels=("full_refusal", "partial_refusal")),
)


@dataclass(frozen=True)
class Source:
    """Where the rows of a benchmark are.

    Attributes:
      paths: that are looked for below the folder of the data, in this order.
      how: what a user does to have the file, for a message.
    """

    paths: tuple[str, ...]
    how: str

    def find(self, data: Path) -> Path | None:
        """The first of the paths that is there."""
        return next((data / path for path in self.paths if (data / path).exists()), None)


class Benchmark(ABC):
    """A benchmark; without state, so that it is made when it is asked for.

    Class attributes:
      NAME: on the command line and in tables.
      SOURCE: of its rows.
      ROLE: "reported": never tuned on; "development"; "training": usual training data.
      QUESTION: what a judge is asked about each answer, one of `judges.questions.QUESTIONS`; "":
        the answers are graded without a judge.
      METRICS: columns of the table, the main one first.
      COUNTS_REFUSALS: whether a judge that cannot answer QUESTION, such as the rule, may say which
        answers are refusals instead.
      KIND: of its prompts, "safety" or "helpfulness": what a model that judges its own candidates
        is asked about them.
      STORED_HOW: what a user does to have prompts of a stored attack, for a message.
    """

    NAME: ClassVar[str]
    SOURCE: ClassVar[Source]
    ROLE: ClassVar[Role] = "reported"
    QUESTION: ClassVar[str] = ""
    METRICS: ClassVar[tuple[Metric, ...]]
    COUNTS_REFUSALS: ClassVar[bool] = False
    KIND: ClassVar[str] = "helpfulness"
    STORED_HOW: ClassVar[str] = "name a file of them in attacks.stored.path"

    @abstractmethod
    def read(self, path: Path) -> list[Case]:
        """The cases of a file (or folder) of `SOURCE`.

        Raises:
          UserError: names the file and what is wrong in it.
        """

    @abstractmethod
    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """Numbers of an answer by name, those of `METRICS`; None: missing.

        Args:
          case: that was asked.
          answer: to it; never one that `is_missing`, whose scores are all missing.
          verdict: of the judge, where the benchmark has a question.
        """

    def material(self, case: Case, answer: Answer) -> Material:
        """What a judge is shown."""
        return Material(case.prompt, answer.final, reference=text_of(case.reference))

    def question_for(self, can: Callable[[str], bool]) -> str:
        """What a judge is asked about the answers; "": nothing that it can answer.

        Args:
          can: whether the judge knows a question.
        """
        if self.QUESTION and can(self.QUESTION):
            return self.QUESTION
        return REFUSAL if self.COUNTS_REFUSALS and can(REFUSAL) else ""

    def metrics_by(self, question: str) -> tuple[Metric, ...]:
        """The columns that the verdicts of a question give; "": of no judge."""
        return METRICS_OF_REFUSALS if question != self.QUESTION else self.METRICS

    def grade_by(
        self, question: str, case: Case, answer: Answer, verdict: Verdict | None
    ) -> dict[str, float | None]:
        """The scores of an answer by the verdict of a question; see `grade` and `missing`."""
        if question == self.QUESTION:
            return self.missing(case) if answer.is_missing else self.grade(case, answer, verdict)
        (metric,) = METRICS_OF_REFUSALS
        if answer.finish == "content_filter":
            return {metric.key: 1.0}
        label = verdict.label if verdict else None
        return {metric.key: None if label is None else float(label in metric.labels)}

    def kind(self, case: Case) -> str:
        """The kind of a prompt: `KIND`, unless the rows say it."""
        return self.KIND

    def missing(self, case: Case) -> dict[str, float | None]:
        """The scores of an answer that there is none of."""
        return {metric.key: None for metric in self.METRICS}

    def details(self, rows: Sequence[Graded]) -> Mapping[str, Any]:
        """What else there is to say of the answers of one row of the table, as JSON values."""
        return {}

    def files(self, path: Path) -> list[Path]:
        """The files that are read where the rows are at `path`, those of stored attacks too."""
        if not path.is_dir():
            return [path]
        return sorted(file for file in path.rglob("*") if file.is_file())

    def stored_attacks(self, path: Path) -> Mapping[str, Mapping[str, str]]:
        """Prompts of attacks that come with the data: {attack: {case id: prompt}}."""
        return {}


def text_of(reference: Any) -> str:
    """A reference as text for a judge; "": there is none."""
    if reference is None:
        return ""
    return (
        ", ".join(map(str, reference)) if isinstance(reference, (list, tuple)) else str(reference)
    )
