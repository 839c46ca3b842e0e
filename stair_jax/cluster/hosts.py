"""The machines that work on a program together, as a driver gets them."""

from collections.abc import Sequence
from typing import Protocol

from stair_jax.cluster.host import Host, ThisHost


class Hosts(Protocol):
    """Machines, of which each program gets some."""

    def are_there(self, count: int) -> bool:
        """Whether so many machines could be taken now; of 0, whether there is one."""

    def take(self, count: int) -> Sequence[Host]:
        """Machines for one program, as soon as there are so many; of 0, all that are there."""

    def give_back(self) -> None:
        """Kills what still runs on the machines that were taken."""


class ThisMachine:
    """The machine of the driver alone: `Hosts`."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._host = ThisHost()

    def are_there(self, count: int) -> bool:
        """It is."""
        return True

    def take(self, count: int) -> Sequence[Host]:
        """The machine."""
        return [self._host]

    def give_back(self) -> None:
        """Kills what still runs."""
        self._host.close()
