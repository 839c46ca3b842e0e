"""Workers of a cluster in this process, the first of which dies in the middle of its work."""

import pickle
from collections.abc import Collection

from stair_jax.closing import Closing
from stair_jax.cluster.address import ClusterAddress
from stair_jax.cluster.pool import Came, Lost
from stair_jax.cluster.work import Order, Report
from stair_jax.cluster.worker_process import Absent, Failure, MakeWorker, WorkerProcess
from stair_jax.errors import UserError

FIRST = "a/0.1"
_LIFE = 2  # orders with items that the first worker gets; nobody hears of the last


class LocalPool(Closing):
    """Two workers, which get and give everything as bytes: a `Pool`, in the place of a `RayPool`.

    Attributes:
      lost: names of the workers that died.
    """

    def __init__(self, address: ClusterAddress, make: MakeWorker):
        """Starts both; `address` says nothing here."""
        self.lost: list[str] = []
        self._make, self._turn, self._orders_to_first = pickle.dumps(make), 0, 0
        self._workers: dict[str, WorkerProcess] = {}
        self._orders: dict[str, bytes] = {}
        self._news: list[Came] = []
        self._start(FIRST)
        self._start("b/0.2")

    def close(self) -> None:
        """Ends the workers."""
        self._workers.clear()

    def names(self) -> Collection[str]:
        """The workers that are there."""
        return self._workers.keys()

    def send(self, worker: str, order: Order) -> None:
        """Keeps an order until it is the worker's turn."""
        self._orders[worker] = pickle.dumps(order)

    def wait(self, seconds: float) -> list[Came | Lost]:
        """Lets the next worker work a little."""
        self._turn += 1
        if self._news:
            return [self._news.pop(0)]
        name = sorted(self._orders)[self._turn % len(self._orders)]
        order = pickle.loads(self._orders.pop(name))
        report = _said(self._workers[name].exchange(order, 0.0))
        self._orders_to_first += name == FIRST and bool(order.items)
        if name == FIRST and self._orders_to_first == _LIFE:
            del self._workers[name]
            self.lost.append(name)
            self._start("a/0.3")
            return [Lost(name, "killed")]
        return [Came(name, report)]

    def _start(self, name: str) -> None:
        worker = self._workers[name] = WorkerProcess()
        answer = worker.start(pickle.loads(self._make))
        self._news.append(Came(name, _said(answer)))


def _said(answer: Report | Absent | Failure) -> Report:
    """A report as it comes over the network."""
    if isinstance(answer, Failure):
        raise UserError(answer.text) if answer.is_users else AssertionError(answer.text)
    report = pickle.loads(pickle.dumps(answer))
    assert isinstance(report, Report)
    return report
