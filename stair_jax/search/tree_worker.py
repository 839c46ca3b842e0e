"""A worker of a search: grows trees of the prompts that it is sent, beside each other."""

import time
from collections.abc import Callable
from dataclasses import replace

from stair_jax.cluster.work import Order, Report
from stair_jax.decoding.driver import Driver
from stair_jax.search.fed_queue import FedQueue
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.search_task import SearchTask

_IDLE_SECONDS = 0.2  # until a worker that has nothing to do asks again
_SHARE = 8  # of its free slots, which it fills at once


class TreeWorker:
    """Searches as it is told: a `cluster.work.Worker`."""

    def __init__(
        self,
        driver: Driver,
        make_task: Callable[[FedQueue, Calibrator | None], SearchTask],
    ):
        """Nothing is searched yet.

        Args:
          driver: of the engine, without tasks.
          make_task: the search of a queue with what is made of the judge's scores.
        """
        self._driver, self._make_task = driver, make_task
        self._queue = FedQueue()
        self._task: SearchTask | None = None

    def exchange(self, order: Order, seconds: float) -> Report:
        """Takes new items, and searches until a tree is done, it has room, or time is up."""
        prompts = order.items
        if prompts and self._task is None:
            self._task = self._make_task(self._queue, order.shared)
            self._driver.add(self._task)
        if self._task is None:
            time.sleep(min(seconds, _IDLE_SECONDS))
            return Report(wants=1)
        self._queue.feed(prompts, order.is_last)
        self._search(self._task, bool(prompts), time.monotonic() + seconds)
        totals = replace(self._task.report, skipped=[])
        return Report(self._queue.fetch(), self._wants(self._task), totals)

    def _search(self, task: SearchTask, is_fed: bool, deadline: float) -> None:
        """Searches until there is something to say.

        A worker that has room asks for more at once only where it got some just now: else there is
        nothing to get at the moment.
        """
        while task.num_trees or self._queue.next is not None:
            self._driver.step()
            is_hungry = is_fed and self._wants(task)
            if self._queue.has_outcomes or is_hungry or time.monotonic() >= deadline:
                return
        time.sleep(_IDLE_SECONDS)

    def _wants(self, task: SearchTask) -> int:
        if self._queue.next is not None or not task.has_room:
            return 0
        return 1 + task.num_free // _SHARE
