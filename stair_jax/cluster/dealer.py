"""The driver's loop: hands out items, takes in results, gives back what a lost worker had."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

from stair_jax.cluster.pool import Lost, Pool
from stair_jax.cluster.work import Order
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.stopping import heed

T = TypeVar("T")
_SECONDS = 1.0  # between two looks at what came; new workers are looked for as often
_LEAST_DEATHS = 8


class Dealt(NamedTuple):
    """The first result of an item.

    Attributes:
      worker: name of the worker that it is from.
      id: of the item.
      result: as the worker reported it.
    """

    worker: str
    id: Hashable
    result: Any


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

    def deal(self, queue: WorkQueue[T], shared: Any = None) -> Iterator[list[Dealt]]:
        """Yields results as they come, never an empty list, until all items are finished.

        What a worker still does of an earlier queue is dropped, so that no two queues of a dealer
        may have the same ids.

        Args:
          queue: of items that can be sent.
          shared: what all items need.

        Raises:
          UserError: a worker failed by something that the user can correct; or one after another
            died, and nothing was finished.
        """
        while not queue.is_done:
            heed()
            self._send(queue, shared)
            found: list[Dealt] = []
            for event in self._pool.wait(_SECONDS):
                if isinstance(event, Lost):
                    self._lose(queue, event)
                    continue
                for id, result in event.report.finished:
                    if queue.finish(id):
                        self._fruitless = 0
                        found.append(Dealt(event.worker, id, result))
                if event.report.totals is not None:
                    self._on_totals(event.worker, event.report.totals)
                self._wants[event.worker] = event.report.wants
            if found:
                yield found

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
