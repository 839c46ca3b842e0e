"""The inside of a worker process, whatever starts it."""

import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from stair_jax.cluster.work import Order, Report, Worker
from stair_jax.errors import UserError

MakeWorker = Callable[[], Worker]


@dataclass(frozen=True)
class Failure:
    """An exception of a worker, which the driver raises.

    Attributes:
      text: of the error; of a fault of ours with the traceback.
      is_users: whether the user can correct it.
    """

    text: str
    is_users: bool


class WorkerProcess:
    """Makes the worker and calls it; what goes wrong is an answer too."""

    def __init__(self) -> None:
        """The worker is not made yet."""
        self._worker: Worker | None = None

    def start(self, make: MakeWorker) -> Report | Failure:
        """Makes the worker, which may take minutes."""
        try:
            self._worker = make()
        except Exception as error:
            return _failure(error)
        return Report(wants=1)

    def exchange(self, order: Order, seconds: float) -> Report | Failure:
        """As `Worker.exchange`."""
        assert self._worker is not None, "a worker gets an order before it has started"
        try:
            return self._worker.exchange(order, seconds)
        except Exception as error:
            return _failure(error)


def _failure(error: Exception) -> Failure:
    if isinstance(error, UserError):
        return Failure(f"{error} (on {socket.gethostname()})", is_users=True)
    return Failure(traceback.format_exc(), is_users=False)
