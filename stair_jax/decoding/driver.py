"""The driver: runs tasks side by side over one engine, and over further services.

It owns the ids of the engine's requests, keeps the priorities of tasks, cancels tasks, and hands
out tokens as they are sampled. The result of a task does not depend on what runs beside it, as that
of a request does not.
"""

import gc
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from stair_jax.decoding.requests import Completion, Request, copied
from stair_jax.decoding.task import Service, Task
from stair_jax.errors import UserError
from stair_jax.stopping import heed

K = TypeVar("K")
R = TypeVar("R")
# (id of the request within its task, token ids sampled since the last call, logps of these)
TokenListener = Callable[[tuple[Hashable, ...], tuple[int, ...], tuple[float, ...]], None]

# A task's priority counts before those of its requests, which are smaller than this.
_PRIORITY_STEP = 2**32
# Between two looks at services that work elsewhere (an endpoint), while the engine has nothing.
_PAUSE_SECONDS = 0.002
# New objects between two of the garbage collector's looks; Python's own 700 are the objects of a
# dozen requests, and a look takes as long as a request.
_OBJECTS = 50_000


@contextmanager
def _few_collections() -> Iterator[None]:
    """Lets the garbage collector look less often, as most objects need none."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(_OBJECTS, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Finished(NamedTuple):
    """A task that is done.

    Attributes:
        ticket: as `Driver.add` returned it.
        result: of the task.
    """

    ticket: int
    result: Any


class _Running(NamedTuple):
    task: Task[Any]
    priority: int
    on_tokens: TokenListener | None
    # By service, ids of the requests that are not completed.
    pending: dict[str, set[Hashable]]


class Driver:
    """Runs tasks over an engine and named services; the engine is the service "".

    Other users of the engine must not have requests pending while the driver steps it.
    """

    def __init__(self, engine: Service, services: Mapping[str, Service] | None = None):
        """A driver without tasks.

        Args:
            engine: an engine without pending requests.
            services: further services by the name that requests give.

        Raises:
            ValueError: the engine has pending requests.
        """
        if engine.pending:
            raise ValueError("a driver needs an engine without pending requests")
        self._services: dict[str, Service] = {"": engine, **(services or {})}
        self._tasks: dict[int, _Running] = {}
        # Tasks that override `advance`.
        self._advancing: dict[int, Task[Any]] = {}
        self._finished: list[Finished] = []
        self._num_tasks = 0

    @property
    def pending(self) -> int:
        """Number of tasks whose results `step` has not returned."""
        return len(self._tasks) + len(self._finished)

    def add(
        self, task: Task[Any], priority: int = 0, on_tokens: TokenListener | None = None
    ) -> int:
        """Starts a task.

        Args:
            task: a task that has not been started.
            priority: the requests of the task with the lowest priority go first, and are the last
                to be preempted.
            on_tokens: called by `step` with tokens of the task's sampling requests as they come.
                After a preemption tokens are computed again, equal up to rounding, and handed out
                from where they had got to; the completion has all of them.

        Returns:
            The ticket of the task.

        Raises:
            UserError: a service refuses a request of the task, which is then cancelled.
        """
        ticket = self._num_tasks
        self._num_tasks += 1
        self._tasks[ticket] = _Running(task, priority, on_tokens, {})
        if type(task).advance is not Task.advance:
            self._advancing[ticket] = task
        try:
            self._go_on(ticket, task.start())
        except UserError:  # of its requests: other tasks go on
            self.cancel(ticket)
            raise
        return ticket

    def cancel(self, ticket: int) -> None:
        """Stops a task: its requests are dropped and its handles given back; no result follows."""
        running = self._tasks.pop(ticket, None)
        self._finished = [finished for finished in self._finished if finished.ticket != ticket]
        if running is not None:
            self._end(ticket, running)

    def close(self) -> None:
        """Cancels all tasks."""
        for ticket in list(self._tasks):
            self.cancel(ticket)
        self._finished.clear()

    @_few_collections()
    def step(self) -> list[Finished]:
        """Steps the services that have something to do, and the tasks that got something.

        Returns:
            The tasks that are done since the last call.
        """
        heed()
        before = len(self._finished)
        is_moving = bool(self._services[""].pending)
        for service in self._services.values():
            if not service.pending:
                continue
            completions = service.step()
            is_moving |= bool(completions)
            self._hand_out(service)
            for completion in completions:
                self._receive(completion)
        for ticket, task in list(self._advancing.items()):
            if ticket in self._tasks:
                self._go_on(ticket, task.advance())
        if not is_moving and len(self._finished) == before and self._tasks:
            if not any(service.pending for service in self._services.values()):
                raise RuntimeError("tasks are not done, and wait for nothing")
            time.sleep(_PAUSE_SECONDS)
        finished, self._finished = self._finished, []
        return finished

    def _hand_out(self, service: Service) -> None:
        take_tokens = getattr(service, "take_tokens", None)
        for id, tokens, logps in take_tokens() if take_tokens else ():
            running = self._tasks.get(id[0])
            if running is not None and running.on_tokens is not None:
                running.on_tokens(id[1:], tokens, logps)

    def _receive(self, completion: Any) -> None:
        ticket, *own = completion.id
        running = self._tasks.get(ticket)
        if running is None:
            return
        for ids in running.pending.values():
            ids.discard(completion.id)
        copy = copied if isinstance(completion, Completion) else replace
        self._go_on(ticket, running.task.receive(copy(completion, id=tuple(own))))

    def _go_on(self, ticket: int, requests: Iterable[Any]) -> None:
        """Sends the requests of a task, and puts the task aside if it is done."""
        running = self._tasks[ticket]
        by_service: dict[str, list[Any]] = {}
        for request in requests:
            sent = self._address(ticket, running, request)
            by_service.setdefault(request.service, []).append(sent)
            running.pending.setdefault(request.service, set()).add(sent.id)
        for name, sent_requests in by_service.items():
            self._services[name].submit(sent_requests)
        if running.task.done:
            del self._tasks[ticket]
            self._end(ticket, running)
            self._finished.append(Finished(ticket, running.task.result))

    def _end(self, ticket: int, running: _Running) -> None:
        """Drops the requests that a task still has, as it may be done without them; closes it."""
        self._advancing.pop(ticket, None)
        for name, ids in running.pending.items():
            if ids:
                self._services[name].cancel(ids)
        running.task.close()

    @staticmethod
    def _address(ticket: int, running: _Running, request: Any) -> Any:
        id = (ticket, *request.id)
        if not isinstance(request, Request):
            return replace(request, id=id)
        return copied(
            request,
            id=id,
            priority=running.priority * _PRIORITY_STEP + request.priority,
            stream=running.on_tokens is not None,
        )


def run_tasks(driver: Driver, tasks: Iterable[Task[R]], in_flight: int = 4096) -> Iterator[R]:
    """Runs tasks, the first ones with the highest priority.

    Args:
        driver: without other tasks.
        tasks: taken one by one, as there is room.
        in_flight: most tasks that are started and not done.

    Yields:
        The results, in the order of the tasks.
    """
    results: dict[int, R] = {}
    wanted = 0
    for finished in run_as_finished(driver, enumerate(tasks), in_flight):
        results.update(finished)
        while wanted in results:
            yield results.pop(wanted)
            wanted += 1


def run_as_finished(
    driver: Driver, tasks: Iterable[tuple[K, Task[R]]], in_flight: int = 4096
) -> Iterator[list[tuple[K, R]]]:
    """As `run_tasks`, for who wants each result as soon as it is there.

    Args:
        driver: without other tasks.
        tasks: with a key each.
        in_flight: most tasks that are started and not done.

    Yields:
        (key, result) of the tasks that a step of the driver finished; never an empty list.
    """
    tickets: dict[int, K] = {}
    left = iter(tasks)
    started, is_left = 0, True
    try:
        while True:
            while is_left and len(tickets) < in_flight:
                entry = next(left, None)
                is_left = entry is not None
                if entry is not None:
                    key, task = entry
                    tickets[driver.add(task, priority=started)] = key
                    started += 1
            if not tickets:
                return
            finished = [(tickets.pop(t), r) for t, r in driver.step() if t in tickets]
            if finished:
                yield finished
    finally:
        for ticket in tickets:
            driver.cancel(ticket)


class _Requests(Task[dict[Hashable, Completion]]):
    """Plain requests, whose completions are the result, by id."""

    def __init__(self, requests: Sequence[Request]):
        self._requests = requests
        self._completions: dict[Hashable, Completion] = {}

    def start(self) -> list[Request]:
        self._end()
        return [replace(request, id=(place,)) for place, request in enumerate(self._requests)]

    def receive(self, completion: Completion) -> list[Request]:
        assert isinstance(completion.id, tuple)
        id = self._requests[completion.id[0]].id
        self._completions[id] = replace(completion, id=id)
        self._end()
        return []

    def _end(self) -> None:
        if len(self._completions) == len(self._requests):
            self.result = self._completions


def run_all(engine: Service, requests: Iterable[Request]) -> dict[Hashable, Completion]:
    """Submits requests to an idle engine and steps it until all are complete.

    Returns:
        The completions by request id.

    Raises:
        ValueError: two requests have the same id, or the engine is not idle.
    """
    requests = list(requests)
    if len({request.id for request in requests}) < len(requests):
        raise ValueError("two requests have the same id")
    (completions,) = run_tasks(Driver(engine), [_Requests(requests)])
    return completions
