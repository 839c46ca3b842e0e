"""The driver's loop: hands out items, takes in results, gives back what a lost worker had."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from stair_jax.cluster.pool import Lost, Pool
from stair_jax.cluster.work import Order
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.stopping import heed

T = TypeVar("T")
_SECONDS = 1.0  # between two looks at what came; new workers are looked for as often
_LEAST_DEATHS = 8

# (name of the worker, id of the item, result)
ResultListener = Callable[[str, Hashable, Any], None]


class Dealer:
    """Deals the items of one queue after another to the workers of a pool."""

    def __init__(
        self, pool: Pool, on_totals: Callable[[str, Any], None] = lambda worker, totals: None
    ):
        """Nothing is dealt yet.

        Args:
          pool: whose workers stay from one queue to the next.
          on_totals: called with the name of a worker and its totals, whenever it says them.
        """
        self._pool, self._on_totals = pool, on_totals
        self._wants: dict[str, int] = {}  # of the workers that wait for an order
        self._fruitless = 0  # deaths since the last result

    def run(self, queue: WorkQueue[T], on_result: ResultListener, shared: Any = None) -> None:
        """Returns when all items of the queue are finished.

        Args:
          queue: of items that can be sent.
          on_result: called with the first result of each item.
          shared: what all items need.

        Raises:
          UserError: a worker failed by something that the user can correct; or one after another
            died, and nothing was finished.
        """
        while not queue.is_done:
            heed()
            self._send(queue, shared)
            for event in self._pool.wait(_SECONDS):
                if isinstance(event, Lost):
                    self._lose(queue, event)
                    continue
                for id, result in event.report.finished:
                    if queue.finish(id):
                        self._fruitless = 0
                        on_result(event.worker, id, result)
                if event.report.totals is not None:
                    self._on_totals(event.worker, event.report.totals)
                self._wants[event.worker] = event.report.wants

    def _send(self, queue: WorkQueue[T], shared: Any) -> None:
        count = len(self._pool.names())
        for worker, wants in self._wants.items():
            items = queue.take(worker, wants, count)
            self._pool.send(worker, Order(items, queue.is_dealt, shared))
        self._wants.clear()

    def _lose(self, queue: WorkQueue[T], event: Lost) -> None:
        self._wants.pop(event.worker, None)
        back = queue.lose(event.worker)
        say(f"worker {event.worker} is lost ({event.reason}); {back} of its items wait again")
        self._fruitless += 1
        if self._fruitless > max(_LEAST_DEATHS, 3 * len(self._pool.names())):
            raise UserError(
                f"{self._fruitless} workers died one after another, and nothing was finished "
                f"meanwhile: {event.reason}; a machine may lack memory for its workers"
            )
