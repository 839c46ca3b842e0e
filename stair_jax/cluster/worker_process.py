"""The inside of a worker process, whatever starts it."""

import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stair_jax.cluster.carried import AbsentFolders, CarriedFolder, Unpacked
from stair_jax.cluster.work import Order, Report, Worker
from stair_jax.errors import UserError


class MakeWorker(Protocol):
    """Makes a worker in the process of the worker; can be pickled."""

    def __call__(self) -> Worker:
        """Loads all that the worker needs: it cannot count on its folders afterwards.

        Raises:
          AbsentFolders: some of it is not there.
        """

    def moved(self, places: Mapping[Path, Path]) -> "MakeWorker":
        """The same with folders in other places."""


@dataclass(frozen=True)
class Absent:
    """Folders that have to be carried to the worker."""

    folders: Sequence[Path]


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

    def start(
        self,
        make: MakeWorker,
        carried: Sequence[CarriedFolder] = (),
        get: Callable[[Any], bytes] = bytes,
    ) -> Report | Absent | Failure:
        """Makes the worker, which may take minutes.

        Args:
          make: makes it.
          carried: folders that were absent before.
          get: the bytes behind a reference of these.
        """
        try:
            if carried:
                # Not for the time of the worker, which ends by a kill: the copies would stay.
                with Unpacked(carried, get) as unpacked:
                    self._worker = make.moved(unpacked.places)()
            else:
                self._worker = make()
        except AbsentFolders as error:
            return Absent(error.folders)
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
