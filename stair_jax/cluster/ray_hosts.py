"""Machines of a Ray cluster on each of which an actor has a process of a program."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from stair_jax.closing import Closing
from stair_jax.cluster.address import ClusterAddress
from stair_jax.cluster.host import Host, HostLost, Look, ThisHost
from stair_jax.cluster.places import Place, find_machines
from stair_jax.cluster.ray_connection import RayConnection, reason
from stair_jax.monitoring import say
from stair_jax.stopping import heed

_LOOK_SECONDS = 1.0  # between two looks at the machines of the cluster
_START_SECONDS = 120.0  # for an actor, which imports little


class RayHosts(Closing):
    """The machines of a Ray cluster that are alike: `Hosts`.

    The processes end with this object. Ray ends the actors where this process is killed, and their
    processes end with them.
    """

    def __init__(self, address: ClusterAddress):
        """Connects to the cluster.

        Raises:
          UserError: as `RayConnection`.
        """
        self._connection = RayConnection(address)
        self._taken: list[_RayHost] = []

    def close(self) -> None:
        """Kills what still runs."""
        try:
            self.give_back()
        finally:
            self._connection.close()

    def are_there(self, count: int) -> bool:
        """As `Hosts.are_there`."""
        return len(self._find(count)) >= max(count, 1)

    def take(self, count: int) -> Sequence[Host]:
        """As `Hosts.take`.

        Raises:
          HostLost: a machine went away meanwhile.
        """
        is_said = False
        while not self.are_there(count):
            if not is_said:
                wanted = f"{count} machines that are alike" if count else "a machine"
                say(f"waits for {wanted} in --cluster={self._connection.address.text}")
                is_said = True
            heed()
            time.sleep(_LOOK_SECONDS)
        self._taken = [_RayHost(self._connection, place) for place in self._find(count)]
        for host in self._taken:
            host.free_port()  # waits for the actor
        return self._taken

    def give_back(self) -> None:
        """As `Hosts.give_back`."""
        for host in self._taken:
            host.kill()
        self._taken = []

    def _find(self, count: int) -> list[Place]:
        return find_machines(self._connection.nodes())[: count or None]


class _RayHost:
    """The actor of a machine: a `Host`. A look is sent, and read when the answer has come."""

    def __init__(self, connection: RayConnection, place: Place):
        self.name = place.name
        self._connection, self._ray = connection, connection.ray
        actor_class = self._ray.remote(ThisHost)
        self._actor = connection.start(actor_class, place.node, dict(place.options))
        self._look: Any = None

    def free_port(self) -> int:
        return int(self._get(self._actor.free_port.remote()))

    def start(self, words: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        self._get(self._actor.start.remote(words, environment, folder))

    def look(self) -> Look:
        if self._look is None:
            self._look = self._actor.look.remote()
        if not self._ray.wait([self._look], timeout=0)[0]:
            return Look()
        answer, self._look = self._look, None
        look: Look = self._get(answer)
        return look

    def send(self, number: int) -> None:
        self._actor.send.remote(number)

    def kill(self) -> None:
        self._connection.kill(self._actor)

    def _get(self, answer: Any) -> Any:
        try:
            return self._ray.get(answer, timeout=_START_SECONDS)
        except self._ray.exceptions.RayError as error:
            raise HostLost(f"the machine {self.name} is lost ({reason(error)})") from error
