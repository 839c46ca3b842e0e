"""A changing number of workers, as a driver sees them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from stair_jax.cluster.work import Order, Report


@dataclass(frozen=True)
class Came:
    """A worker is ready for its next order.

    Attributes:
      worker: its name.
      report: on the last one; an empty report where it has just started.
    """

    worker: str
    report: Report


@dataclass(frozen=True)
class Lost:
    """A worker is gone, whatever it had.

    Attributes:
      worker: its name.
      reason: in a few words.
    """

    worker: str
    reason: str


class Pool(Protocol):
    """Workers; new ones are started where there is a place for them."""

    def names(self) -> Collection[str]:
        """The workers that are there, or about to start."""

    def wait(self, seconds: float) -> list[Came | Lost]:
        """What happened, as soon as something did; empty once the seconds are over.

        Raises:
          UserError: a worker failed by something that the user can correct.
        """

    def send(self, worker: str, order: Order) -> None:
        """Sends an order to a worker that has come."""
