"""What every judge has in common: it is asked a question about an answer, and gives a verdict."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stair_jax.decoding.task import Task


@dataclass(frozen=True)
class Material:
    """What a judge is shown; all of it is text that may try to pass for a judge's.

    Attributes:
      prompt: the original prompt.
      answer: the final answer, decoded.
      reference: the right answer; "": there is none.
      other: of a comparison, the other answer.
      policy: of a safeguard, the rules to judge by; "": its own.
    """

    prompt: str
    answer: str
    reference: str = ""
    other: str = ""
    policy: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    Attributes:
      question: that was asked, one of `questions.QUESTIONS`.
      judge: name of the judge.
      label: one of the labels of the question; None: its reply could not be read, and the verdict
        is missing.
      scores: numbers of the question, such as those of a rubric; empty where the label is None.
      text: the judge's reply, for readers.
      tokens: that it generated.
      model: of an endpoint, the model that it says has judged; "": not told, or no endpoint.
      date: of an endpoint, the day on which the reply was written, in UTC, as YYYY-MM-DD.
    """

    question: str
    judge: str
    label: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    tokens: int = 0
    model: str = ""
    date: str = ""


class Judge(ABC):
    """Whoever answers questions about answers.

    Attributes:
      name: of the judge in tables, such as "rule" or "model:Qwen2.5-7B-Instruct".
    """

    name: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes its verdicts comparable: model asked and reported, hashes of the prompts."""

    @abstractmethod
    def can(self, question: str) -> bool:
        """Whether it knows a question."""

    @abstractmethod
    def task(self, question: str, material: Material, key: str) -> Task[Verdict]:
        """A task whose result is the verdict.

        Args:
          question: that it `can` answer.
          material: what it is shown.
          key: what random numbers, such as those of a fence, are drawn from: the id of the answer.
        """
