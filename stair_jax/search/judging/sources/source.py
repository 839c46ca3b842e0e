"""What every source of scores has in common: it scores one question about one final answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from stair_jax.decoding.requests import Handle
from stair_jax.search.judging.replies import Question

RequestKey = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """An answer to be judged.

    Attributes:
      prompt: the user's prompt.
      kind: "safety" or "helpfulness".
      answer: the final answer, text of the output block.
      output: the same with the "Final Answer:" that an output block begins with; empty: `answer`.
      text: the whole answer, with its steps and tags; empty: `answer`.
      reference: the right answer, where the prompt has one.
      label: of the prompt, see `data.records.Prompt`.
    """

    prompt: str
    kind: str
    answer: str
    output: str = ""
    text: str = ""
    reference: Any = None
    label: Any = None


@dataclass(frozen=True)
class Asking:
    """How requests are made for one question.

    Attributes:
      id: of the requests, of which one is under way at a time.
      key: attempt -> random key of its request.
      parent: a kept handle that the prompt of a language model is expected to start with. If it
        does not, the handle's ancestors are tried, and then the whole prompt is sent.
      priority: of the requests.
    """

    id: Hashable
    key: Callable[[int], RequestKey]
    parent: Handle | None = None
    priority: int = 0


class Scoring(ABC):
    """One question about one answer, put to one source.

    Submit the requests of `start`, pass each completion to `receive`, submit what that returns, and
    read `score` once `done`.

    Attributes:
      score: in [-1, 1]; None while there is none, and in the end if there is none.
      done: whether no request is under way, nor needed.
      unreadable: replies that could not be read.
      closings: replies whose closing line was asked for separately.
    """

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.score: float | None = None
        self.done = False
        self.unreadable = self.closings = 0

    @abstractmethod
    def start(self) -> list[Any]:
        """The first request; none if the score is known at once."""

    def receive(self, completion: Any) -> list[Any]:
        """Reads a completion; returns the next request, or nothing."""
        raise AssertionError(f"nothing was asked, and {completion.id!r} came")

    def finish(self, score: float | None) -> list[Any]:
        """Settles the score."""
        self.score, self.done = score, True
        return []


class Known(Scoring):
    """A score that needs no request; None: the source has none for this answer."""

    def __init__(self, score: float | None):
        """It is settled by `start`."""
        super().__init__()
        self._known = score

    def start(self) -> list[Any]:
        """No request."""
        return self.finish(self._known)


class Source(ABC):
    """Whoever scores answers.

    Attributes:
      reads_reasoning: whether it is given more of an answer than the output block.
    """

    reads_reasoning: bool = False

    @abstractmethod
    def ask(self, question: Question, case: Case, asking: Asking) -> Scoring:
        """The scoring of one question about an answer."""
