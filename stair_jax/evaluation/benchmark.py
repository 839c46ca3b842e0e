"""What every benchmark has in common: where its rows are, what it asks, how it grades."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
      KIND: of its prompts, "safety" or "helpfulness": what a model that judges its own candidates
        is asked about them.
    """

    NAME: ClassVar[str]
    SOURCE: ClassVar[Source]
    ROLE: ClassVar[Role] = "reported"
    QUESTION: ClassVar[str] = ""
    METRICS: ClassVar[tuple[Metric, ...]]
    KIND: ClassVar[str] = "helpfulness"

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

    def kind(self, case: Case) -> str:
        """The kind of a prompt: `KIND`, unless the rows say it."""
        return self.KIND

    def missing(self, case: Case) -> dict[str, float | None]:
        """The scores of an answer that there is none of."""
        return {metric.key: None for metric in self.METRICS}

    def details(self, rows: Sequence[Graded]) -> Mapping[str, Any]:
        """What else there is to say of the answers of one row of the table, as JSON values."""
        return {}

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
