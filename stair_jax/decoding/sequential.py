"""Tasks that go on in steps, written as a generator that yields the task of each step."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

from stair_jax.decoding.task import Task

R = TypeVar("R")

# Yields tasks, is sent their results, and returns its own.
Steps = Generator[Task[Any], Any, R]


class SequentialTask(Task[R]):
    """One task after another, each made of the results of those before.

    The generator sees results of its own tasks alone, in the order in which it yields them, so that
    the result cannot depend on the order of completions; what runs side by side is yielded as one
    `GatherTask`.
    """

    def __init__(self, steps: Steps[R]):
        """A task that has asked nothing yet; the generator must not have been started."""
        self._steps = steps
        self._inner: Task[Any] | None = None
        self._number = 0

    def start(self) -> list[Any]:
        """The requests of the first step."""
        return self._go_on(None)

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on to the step that it belongs to, unless that is over."""
        number, *own = completion.id
        if self._inner is None or number != self._number:
            return []
        requests = self._named(self._inner.receive(replace(completion, id=tuple(own))))
        return requests + (self._go_on(self._taken()) if self._inner.done else [])

    def close(self) -> None:
        """Closes the step that is not done, and the generator."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None
        self._steps.close()

    def _go_on(self, value: Any) -> list[Any]:
        """Begins further steps, up to one that waits for completions."""
        requests: list[Any] = []
        while True:
            try:
                self._inner = self._steps.send(value)
            except StopIteration as end:
                self.result = end.value
                return requests
            self._number += 1
            requests += self._named(self._inner.start())
            if not self._inner.done:
                return requests
            value = self._taken()

    def _taken(self) -> Any:
        """The result of the step that is done, which is closed."""
        assert self._inner is not None
        inner, self._inner = self._inner, None
        inner.close()
        return inner.result

    def _named(self, requests: list[Any]) -> list[Any]:
        return [replace(request, id=(self._number, *request.id)) for request in requests]
