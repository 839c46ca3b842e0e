"""Items that become results by a task each: here, over one driver, or in a worker of a cluster."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from stair_jax.cluster.work import Order, Report
from stair_jax.decoding.driver import Driver, run_as_finished
from stair_jax.decoding.requests import EngineStats
from stair_jax.decoding.task import Task

_IDLE_SECONDS = 0.2  # until a worker that has nothing to do asks again
_FILL = 2  # items a slot of an engine, which so has work while results are on their way
_BATCHED = 256  # items of a service without slots, which works in batches
_SHARE = 8  # of its room, which a worker lets become free before it asks for more


class Made(NamedTuple):
    """A result of an item.

    Attributes:
      key: of the item.
      result: of its task.
      seconds: from the start of the task to its end.
    """

    key: Any
    result: Any
    seconds: float


MakeTask = Callable[[Any], Task[Any]]  # of an item
# Takes items with a key each, as there is room; yields the results as they are made.
RunItems = Callable[[Iterable[tuple[Hashable, Any]]], Iterator[list[Made]]]


def run_here(driver: Driver, make_task: MakeTask, in_flight: int = 4096) -> RunItems:
    """Who runs the tasks of items over a driver of this process.

    Args:
      driver: without other tasks.
      make_task: the task of an item.
      in_flight: most tasks that are started and not done.
    """

    def run(items: Iterable[tuple[Hashable, Any]]) -> Iterator[list[Made]]:
        started: dict[Hashable, float] = {}

        def tasks() -> Iterator[tuple[Hashable, Task[Any]]]:
            for key, item in items:  # the driver starts each as soon as it has it
                started[key] = time.monotonic()
                yield key, make_task(item)

        for finished in run_as_finished(driver, tasks(), in_flight):
            now = time.monotonic()
            yield [Made(key, result, now - started.pop(key)) for key, result in finished]

    return run


class TaskWorker:
    """Runs the tasks of the items that it is sent beside each other: a `cluster.work.Worker`.

    An item comes as (key, item), and its result is a `Made`.
    """

    def __init__(
        self,
        driver: Driver,
        begin: Callable[[Any], MakeTask],
        slots: int,
        stats: EngineStats | None = None,
    ):
        """Nothing is under way yet.

        Args:
          driver: without tasks.
          begin: called once with what all items share; returns what makes the task of an item.
          slots: of the engine; 0: there is none, and others work in batches.
          stats: of the engine, which each report has a copy of.
        """
        self._driver, self._begin, self._stats = driver, begin, stats
        self._room = _FILL * slots or _BATCHED
        self._make_task: MakeTask | None = None
        self._running: dict[int, tuple[Hashable, float]] = {}  # (key, start) by ticket
        self._num_started = 0

    def exchange(self, order: Order, seconds: float) -> Report:
        """Takes new items, and works until there is enough to say, room for more, or time is up."""
        deadline = time.monotonic() + seconds
        for key, item in order.items:
            self._start(key, item, order.shared)
        if not self._running:
            time.sleep(min(seconds, _IDLE_SECONDS))
        made = self._work(order, deadline)
        totals = None if self._stats is None else replace(self._stats)
        finished = [(each.key, each) for each in made]
        return Report(finished, self._room - len(self._running), totals)

    def _start(self, key: Hashable, item: Any, shared: Any) -> None:
        if self._make_task is None:
            self._make_task = self._begin(shared)
        ticket = self._driver.add(self._make_task(item), priority=self._num_started)
        self._running[ticket] = key, time.monotonic()
        self._num_started += 1

    def _work(self, order: Order, deadline: float) -> list[Made]:
        """What was made.

        A worker that has room asks for more at once only where it got some just now, or has made
        room since: else there is nothing to get at the moment.
        """
        made: list[Made] = []
        enough = max(1, self._room // _SHARE)
        while self._running:
            finished, now = self._driver.step(), time.monotonic()
            for ticket, result in finished:
                key, start = self._running.pop(ticket)
                made.append(Made(key, result, now - start))
            has_room = bool(order.items) and self._room - len(self._running) >= enough
            is_hungry = not order.is_last and (len(made) >= enough or has_room)
            if is_hungry or now >= deadline:
                break
        return made
