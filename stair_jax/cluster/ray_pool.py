"""Workers as actors of Ray."""

import itertools
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.closing import Closing
from stair_jax.cluster.address import ClusterAddress
from stair_jax.cluster.carried import CarriedFolder, carry
from stair_jax.cluster.places import Place, find_places
from stair_jax.cluster.pool import Came, Lost
from stair_jax.cluster.ray_connection import RayConnection, reason
from stair_jax.cluster.work import Order
from stair_jax.cluster.worker_process import Absent, Failure, MakeWorker, WorkerProcess
from stair_jax.errors import UserError
from stair_jax.monitoring import say

_LOOK_SECONDS = 1.0  # between two looks at the machines of the cluster
_EXCHANGE_SECONDS = 1.0  # after which a worker answers in any case


@dataclass
class _Running:
    """A worker that was started: its place, its actor, and what it has to answer."""

    place: Place
    actor: Any
    answer: Any
    is_ready: bool = False


class RayPool(Closing):
    """One worker in each place of a Ray cluster, made anew where it died: a `Pool`.

    The workers live as long as this pool. Ray ends them too where this process is killed.
    """

    def __init__(self, address: ClusterAddress, make: MakeWorker):
        """Connects to the cluster, or starts one on this machine.

        Args:
          address: of the cluster.
          make: makes a worker, in its own process; can be pickled.

        Raises:
          UserError: Ray is not installed, the cluster is open to strangers, or cannot be reached.
        """
        self._connection = RayConnection(address)
        self._ray = self._connection.ray
        self._address, self._make = address, make
        self._actor_class = self._ray.remote(WorkerProcess)
        self._running: dict[str, _Running] = {}
        self._carried: dict[Path, CarriedFolder] = {}
        self._numbers = itertools.count(1)
        self._looked = -_LOOK_SECONDS
        self._had_places = True

    def close(self) -> None:
        """Ends the workers, and a cluster that was started here."""
        try:
            for running in self._running.values():
                self._connection.kill(running.actor)
            self._running.clear()
        finally:
            self._connection.close()

    def names(self) -> Collection[str]:
        """The workers that are there, or about to start."""
        return self._running.keys()

    def wait(self, seconds: float) -> list[Came | Lost]:
        """What happened, as soon as something did; starts workers in places that have none."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._start_missing()
            self._looked = time.monotonic()
        answers = {running.answer: name for name, running in self._running.items()}
        answers.pop(None, None)
        if not answers:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(answers), num_returns=1, timeout=seconds)
        if ready:  # and what else is there by now
            ready, _ = self._ray.wait(list(answers), num_returns=len(answers), timeout=0)
        events = [self._event(answers[answer]) for answer in ready]
        return [event for event in events if event is not None]

    def send(self, worker: str, order: Order) -> None:
        """Sends an order to a worker that has come."""
        running = self._running[worker]
        running.answer = running.actor.exchange.remote(order, _EXCHANGE_SECONDS)

    def _event(self, name: str) -> Came | Lost | None:
        running = self._running[name]
        try:
            value = self._ray.get(running.answer)
        except self._ray.exceptions.RayError as error:
            del self._running[name]
            self._connection.kill(running.actor)  # out of reach perhaps, it would hold its place
            return Lost(name, reason(error))
        running.answer = None
        if isinstance(value, Failure):
            if value.is_users:
                raise UserError(value.text)
            raise RuntimeError(f"worker {name} failed:\n{value.text}")
        if isinstance(value, Absent):
            carried = [self._carry(folder) for folder in value.folders]
            running.answer = running.actor.start.remote(self._make, carried, self._ray.get)
            return None
        if not running.is_ready:
            running.is_ready = True
            say(f"worker {name} is ready")
        return Came(name, value)

    def _carry(self, folder: Path) -> CarriedFolder:
        if folder not in self._carried:
            say(f"{folder} cannot be read by all workers: it is sent to them")
            self._carried[folder] = carry(folder, self._ray.put)
        return self._carried[folder]

    def _start_missing(self) -> None:
        """Starts a worker in each place that has none."""
        taken = {running.place for running in self._running.values()}
        places = find_places(self._connection.nodes(), self._address)
        for place in (place for place in places if place not in taken):
            actor = self._connection.start(self._actor_class, place.node, dict(place.options))
            name = f"{place.name}.{next(self._numbers)}"
            self._running[name] = _Running(place, actor, actor.start.remote(self._make))
        if not places and self._had_places:
            say(f"--cluster={self._address.text} has no machine for a worker; waits for some")
        self._had_places = bool(places)
