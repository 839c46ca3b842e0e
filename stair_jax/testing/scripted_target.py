"""Targets and judges without a model: what they answer is a function of what they are asked.

Their requests go through a driver like those of real ones, to a service that completes them at
once or in mixed order. Tasks that were begun and are not closed are counted.
"""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.task import Task
from stair_jax.evaluation.judges.judge import Judge, Material, Verdict
from stair_jax.evaluation.target import Asked, Message, Reply, Target

R = TypeVar("R")


@dataclass(frozen=True)
class Call:
    """A request: what is to be computed."""

    id: Hashable
    compute: Callable[[], Any]
    service: str = ""


@dataclass(frozen=True)
class Computed:
    """A completion: what a call gave."""

    id: Hashable
    value: Any


class ScriptedService:
    """Completes calls, all at once or some at a time and in mixed order.

    Attributes:
      waiting: calls that are not completed.
    """

    def __init__(self, disorder: int | None = None):
        """An idle service; `disorder` seeds the order of completions, None: all at once."""
        self.waiting: list[Call] = []
        self._order = None if disorder is None else random.Random(disorder)

    @property
    def pending(self) -> int:
        """Number of calls that are not completed."""
        return len(self.waiting)

    def submit(self, requests: Iterable[Call]) -> None:
        """Takes calls over."""
        self.waiting += requests

    def step(self) -> list[Computed]:
        """Completes what waits, or some of it."""
        taken, self.waiting = self.waiting, []
        if self._order is not None and taken:
            self._order.shuffle(taken)
            count = self._order.randint(1, len(taken))
            taken, self.waiting = taken[:count], taken[count:]
        return [Computed(call.id, call.compute()) for call in taken]

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops calls."""
        dropped = set(ids)
        self.waiting = [call for call in self.waiting if call.id not in dropped]


class CallTask(Task[R]):
    """One call; `open_tasks` holds it while it is begun and not closed."""

    def __init__(self, compute: Callable[[], R], open_tasks: set[Any]):
        """Nothing is asked yet."""
        self._compute, self._open = compute, open_tasks

    def start(self) -> list[Call]:
        """The call."""
        self._open.add(self)
        return [Call((), self._compute)]

    def receive(self, completion: Computed) -> list[Call]:
        """Its value is the result."""
        self.result = completion.value
        return []

    def close(self) -> None:
        """Counted as closed; a second time is a fault of the caller."""
        self._open.remove(self)


class ScriptedTarget(Target):
    """Answers by a function.

    Attributes:
      asked: (chat, key, method) of all that was asked, in the order of the tasks' making.
      open_tasks: those that were begun and are not closed.
    """

    def __init__(
        self, answer: Callable[[Asked, str], str | Reply], name: str = "scripted", tokens: int = 0
    ):
        """A target.

        Args:
          answer: makes a reply, or its final text, of a chat and a key.
          name: of the model.
          tokens: that each answer given as text counts; 0: one for each word.
        """
        self.name, self._answer, self._tokens = name, answer, tokens
        self.asked: list[tuple[Asked, str, str]] = []
        self.open_tasks: set[Any] = set()

    def ask(self, asked: Asked, key: str, method: str = "greedy") -> Task[Reply]:
        """A task whose result is what the function says."""
        self.asked.append((asked, key, method))
        return CallTask(lambda: self._reply(asked, key), self.open_tasks)

    def likelihoods(
        self, messages: Sequence[Message], choices: Sequence[str]
    ) -> Task[tuple[float, ...]]:
        """Minus the number of letters of each choice."""
        return CallTask(lambda: tuple(-float(len(text)) for text in choices), self.open_tasks)

    def _reply(self, asked: Asked, key: str) -> Reply:
        found = self._answer(asked, key)
        if isinstance(found, Reply):
            return found
        count = self._tokens or len(found.split())
        return Reply(found, final=found, tokens=count, generated_tokens=count)


class ScriptedJudge(Judge):
    """Gives verdicts by a function.

    Attributes:
      seen: (question, material, key) of all that was asked.
      open_tasks: those that were begun and are not closed.
    """

    def __init__(
        self, verdict: Callable[[str, Material], Verdict], questions: Iterable[str] = ("rubric",)
    ):
        """A judge.

        Args:
          verdict: of a question about a material.
          questions: that it knows.
        """
        self.name, self._verdict, self._questions = "scripted", verdict, set(questions)
        self.seen: list[tuple[str, Material, str]] = []
        self.open_tasks: set[Any] = set()

    def identity(self) -> dict[str, Any]:
        """Its name."""
        return {"name": self.name}

    def can(self, question: str) -> bool:
        """Whether the question is one of those given."""
        return question in self._questions

    def task(self, question: str, material: Material, key: str) -> Task[Verdict]:
        """A task whose result is what the function says."""
        self.seen.append((question, material, key))
        return CallTask(lambda: self._verdict(question, material), self.open_tasks)


def run_scripted(tasks: Sequence[Task[R]], disorder: int | None = None) -> list[R]:
    """The results of tasks over a service, by order of the tasks."""
    return list(run_tasks(Driver(ScriptedService(disorder)), tasks))
