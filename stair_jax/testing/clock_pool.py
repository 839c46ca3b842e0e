"""Workers in this process on a clock of their own, which die when they are told to."""

import heapq
import itertools
import random
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from stair_jax.cluster.pool import Came, Lost
from stair_jax.cluster.work import Order, Report


@dataclass
class Machine:
    """A place for a worker.

    Attributes:
      number: of the machine.
      worker: name of the worker that is there.
      done: (time, id) of the items in progress, the first one first.
    """

    number: int
    worker: str
    done: list[tuple[float, Hashable]] = field(default_factory=list)


class ClockPool:
    """A pool whose workers only wait, on a clock that jumps from event to event.

    Items are (id, seconds). Workers die after times of exponential distribution, and others take
    their places.

    Attributes:
      now: seconds since the start.
      deaths: number of workers that died.
    """

    def __init__(
        self,
        machines: int,
        lanes: int,
        start: float = 0.0,
        life: float = 0.0,
        seed: int = 0,
        joins: Sequence[float] = (),
    ):
        """Starts a worker on each machine.

        Args:
          machines: that are there.
          lanes: items of a worker at once.
          start: seconds until a worker can begin.
          life: seconds until it dies, on the average; 0: it does not.
          seed: of the deaths.
          joins: seconds after which each further machine joins.
        """
        self.now, self.deaths = 0.0, 0
        self._lanes, self._start, self._life = lanes, start, life
        self._random, self._numbers = random.Random(seed), itertools.count()
        # (time, order, what, machine, worker)
        self._events: list[tuple[float, int, str, int, str]] = []
        self._machines: dict[int, Machine] = {}
        for number in range(machines):
            self._boot(number)
        for number, time in enumerate(joins, start=machines):
            self._at(time, "join", number, "")

    def names(self) -> Collection[str]:
        """The workers that are there, or about to start."""
        return [machine.worker for machine in self._machines.values()]

    def wait(self, seconds: float) -> list[Came | Lost]:
        """The next event, however far it is; the driver's seconds are nothing to this clock."""
        while self._events:
            self.now, _, what, number, worker = heapq.heappop(self._events)
            if what == "join":
                self._boot(number)
            elif self._machines[number].worker == worker:
                return [self._happen(what, self._machines[number])]
        raise AssertionError("nothing happens any more, and items are left")

    def send(self, worker: str, order: Order) -> None:
        """Lets a worker wait for its items."""
        machine = next(m for m in self._machines.values() if m.worker == worker)
        for id, seconds in order.items:
            heapq.heappush(machine.done, (self.now + seconds, id))
        ends = machine.done[0][0] if machine.done else self.now + 1.0
        free = self._lanes - len(machine.done)
        self._at(
            self.now if order.items and free else max(ends, self.now), "report", machine.number
        )

    def _happen(self, what: str, machine: Machine) -> Came | Lost:
        if what == "death":
            self.deaths += 1
            lost = machine.worker
            self._boot(machine.number)
            return Lost(lost, "simulated")
        finished: list[tuple[Hashable, None]] = []
        while machine.done and machine.done[0][0] <= self.now:
            finished.append((heapq.heappop(machine.done)[1], None))
        return Came(machine.worker, Report(finished, self._lanes - len(machine.done)))

    def _boot(self, number: int) -> None:
        machine = Machine(number, f"{number}.{next(self._numbers)}")
        self._machines[number] = machine
        self._at(self.now + self._start, "report", number)
        if self._life:
            self._at(self.now + self._random.expovariate(1 / self._life), "death", number)

    def _at(self, time: float, what: str, number: int, worker: str | None = None) -> None:
        name = self._machines[number].worker if worker is None else worker
        heapq.heappush(self._events, (time, next(self._numbers), what, number, name))
