"""Tasks: what asks an engine, one request after another, and comes to a result.

A search, a judgement, best-of-N, a beam search, a greedy answer and a request to a server are
tasks. A task never steps an engine and never waits: `decoding/driver.py` sends its requests,
brings it their completions, and runs any number of tasks side by side.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


class Service(Protocol):
    """What completes requests: an `Engine`, or whatever else answers by id.

    Requests and completions are dataclasses with an `id`; requests also have `service`, the name
    of the service that they are for ("" is the engine of the driver).
    """

    @property
    def pending(self) -> int:
        """Number of requests whose completions `step` has not returned."""

    def submit(self, requests: Iterable[Any]) -> None:
        """Queues requests."""

    def step(self) -> list[Any]:
        """Goes on a little; returns the completions that became known since the last call."""

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops pending requests; ids that are not pending are ignored."""


class Task(ABC, Generic[R]):
    """Base class of tasks.

    Ids of requests are tuples, unique among the pending requests of the task. What a task computes
    may depend only on its own completions, never on the order in which they come: then its result
    does not depend on what runs beside it.

    Attributes:
        result: set once `done`.
    """

    result: R

    @property
    def done(self) -> bool:
        """Whether `result` is set."""
        return hasattr(self, "result")

    @abstractmethod
    def start(self) -> list[Any]:
        """The first requests; none if the result is known at once."""

    @abstractmethod
    def receive(self, completion: Any) -> list[Any]:
        """Takes the completion of one of the task's requests; returns what it asks next."""

    def advance(self) -> list[Any]:
        """Called once after each step of the driver, if overridden; returns further requests."""
        return []

    def close(self) -> None:
        """Gives back what the task holds (handles); called once, done or not."""


class TaskGroup:
    """Tasks inside of a task: sends their completions on, and keeps their results.

    The ids of the requests of the inner task `name` begin with that name.

    Attributes:
        results: by name, of the inner tasks that are done.
    """

    def __init__(self) -> None:
        """An empty group."""
        self.results: dict[Hashable, Any] = {}
        self._running: dict[Hashable, Task[Any]] = {}

    @property
    def done(self) -> bool:
        """Whether no inner task is left."""
        return not self._running

    def add(self, name: Hashable, task: Task[Any]) -> list[Any]:
        """Starts an inner task; returns its first requests."""
        self._running[name] = task
        return self._after(name, task.start())

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on to its task; returns the requests that follow."""
        name, *own = completion.id
        requests = self._running[name].receive(replace(completion, id=tuple(own)))
        return self._after(name, requests)

    def close(self) -> None:
        """Closes the tasks that are not done."""
        for task in self._running.values():
            task.close()
        self._running.clear()

    def _after(self, name: Hashable, requests: list[Any]) -> list[Any]:
        task = self._running[name]
        if task.done:
            self.results[name] = task.result
            del self._running[name]
            task.close()
        return [replace(request, id=(name, *request.id)) for request in requests]


class OuterTask(Task[R]):
    """A task around another one, whose result is made of the inner one's."""

    def __init__(self, inner: Task[Any]):
        """Nothing is asked yet."""
        self._inner = inner

    def start(self) -> list[Any]:
        """The first requests of the inner task."""
        return self._after(self._inner.start())

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on."""
        return self._after(self._inner.receive(completion))

    def close(self) -> None:
        """Closes the inner task."""
        self._inner.close()

    @abstractmethod
    def make_result(self, found: Any) -> R:
        """The result, of that of the inner task."""

    def _after(self, requests: list[Any]) -> list[Any]:
        if self._inner.done:
            self.result = self.make_result(self._inner.result)
        return requests


class GatherTask(Task[list[R]]):
    """Several tasks side by side, as one whose result has their results in order."""

    def __init__(self, tasks: Iterable[Task[R]]):
        """A task that has asked nothing yet."""
        self._tasks = list(tasks)
        self._group = TaskGroup()

    def start(self) -> list[Any]:
        """The first requests of all tasks."""
        requests = []
        for number, task in enumerate(self._tasks):
            requests += self._group.add(number, task)
        self._end()
        return requests

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on."""
        requests = self._group.receive(completion)
        self._end()
        return requests

    def close(self) -> None:
        """Closes the tasks that are not done."""
        self._group.close()

    def _end(self) -> None:
        if self._group.done:
            self.result = [self._group.results[number] for number in range(len(self._tasks))]
