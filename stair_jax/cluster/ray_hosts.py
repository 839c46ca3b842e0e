"""Machines of a Ray cluster on each of which an actor has a process of a program."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
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
    """The machines of a Ray cluster that are alike, and see the files of the run: `Hosts`.

    The processes end with this object. Ray ends the actors where this process is killed, and their
    processes end with them. Where no machine sees the files, that of this process takes their part.
    """

    def __init__(self, address: ClusterAddress, file: Path):
        """Connects to the cluster.

        Args:
          address: of the cluster.
          file: that machines have to see, in a folder that they share.

        Raises:
          UserError: as `RayConnection`.
        """
        self._connection = RayConnection(address)
        self._file = file
        self._sees: dict[str, bool] = {}  # by the id of the machine
        self._here = ThisHost()
        self._taken: list[_RayHost] = []
        self._said = ""

    def close(self) -> None:
        """Kills what still runs."""
        try:
            self.give_back()
        finally:
            self._connection.close()

    def are_there(self, count: int) -> bool:
        """As `Hosts.are_there`."""
        return len(self._find(count)) >= max(count, 1) or self._are_all_blind

    def take(self, count: int) -> Sequence[Host]:
        """As `Hosts.take`.

        Raises:
          HostLost: a machine went away meanwhile.
        """
        cluster = f"--cluster={self._connection.address.text}"
        while len(places := self._find(count)) < max(count, 1):
            folder = self._file.parent
            if self._are_all_blind:
                self._say(f"no machine of {cluster} sees {folder}: this one works, and alone")
                return [self._here]
            wanted = f"{count} machines that are alike" if count else "a machine"
            self._say(f"waits for {wanted} in {cluster}")
            heed()
            time.sleep(_LOOK_SECONDS)
        if blind := len(self._sees) - sum(self._sees.values()):
            self._say(f"machines of {cluster} that do not see {self._file.parent}: {blind}")
        self._taken = [_RayHost(self._connection, place) for place in places]
        for host in self._taken:
            host.free_port()  # waits for the actor
        return self._taken

    def give_back(self) -> None:
        """As `Hosts.give_back`."""
        self._here.close()
        for host in self._taken:
            host.kill()
        self._taken = []

    @property
    def _are_all_blind(self) -> bool:
        return bool(self._sees) and not any(self._sees.values())

    def _find(self, count: int) -> list[Place]:
        """Machines that could be taken now."""
        nodes = {node["NodeID"]: node for node in self._connection.nodes()}
        nodes = {id: node for id, node in nodes.items() if find_machines([node])}
        self._sees = {id: sees for id, sees in self._sees.items() if id in nodes}
        asked = {
            id: _RayHost(self._connection, Place(id, node["NodeManagerAddress"], {"num_cpus": 0}))
            for id, node in nodes.items()
            if id not in self._sees
        }
        for id, host in asked.items():
            with suppress(HostLost):  # it is asked again, unless it is gone
                self._sees[id] = host.sees(self._file)
            host.kill()
        seeing = [node for id, node in nodes.items() if self._sees.get(id)]
        return find_machines(seeing)[: count or None]

    def _say(self, text: str) -> None:
        """Says something that was not said last."""
        if text != self._said:
            say(text)
        self._said = text


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

    def sees(self, file: Path) -> bool:
        return bool(self._get(self._actor.sees.remote(str(file))))

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
