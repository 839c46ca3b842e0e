"""Which worker gets which item: pulled one by one, the longest first, the last ones twice.

A worker that is slow or late takes fewer items, so that nobody waits for it. Whoever has nothing to
do while others still work gets copies of what they have, and the first result counts (backup tasks,
Dean and Ghemawat, "MapReduce", OSDI 2004, section 3.6). Nothing here knows of machines or time.
"""

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
_WINDOW = 1024  # items that are read ahead, of which the longest go first


@dataclass
class _Given(Generic[T]):
    """An item that workers have, in the order in which they got it."""

    item: T
    workers: set[str] = field(default_factory=set)


class WorkQueue(Generic[T]):
    """Items that are waiting, and those that workers have."""

    def __init__(
        self,
        items: Iterable[T],
        key: Callable[[T], Hashable],
        size: Callable[[T], float] = lambda item: 0.0,
        window: int = _WINDOW,
    ):
        """Reads as many items as the window holds.

        Args:
          items: read as they are needed.
          key: the id of an item, which no other has.
          size: how long an item may take, in any unit.
          window: items among which the longest is found.
        """
        self._rest, self._key, self._size, self._window = iter(items), key, size, window
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, T]] = []
        self._given: dict[Hashable, _Given[T]] = {}  # the oldest first
        self._held: dict[str, set[Hashable]] = {}
        self._is_read = False
        self._read()

    @property
    def is_dealt(self) -> bool:
        """Whether no item is waiting."""
        return not self._waiting

    @property
    def is_done(self) -> bool:
        """Whether all items are finished."""
        return self.is_dealt and not self._given

    def take(self, worker: str, most: int = 1, workers: int = 1) -> list[T]:
        """Items for a worker: waiting ones, or copies where it has nothing and none is waiting.

        Once all items are read, nobody gets more than an equal share of those that are left: what
        one worker would hoard, another one that is about to start would lack.

        Args:
          worker: who asks.
          most: items.
          workers: number of workers, those included that are about to start.
        """
        held = self._held.setdefault(worker, set())
        if self._is_read:
            left = len(self._waiting) + len(self._given)
            most = min(most, -(-left // max(workers, 1)) - len(held))
        if self.is_dealt and not held:
            return [self._give(given, worker) for given in self._singles(worker, most)]
        taken: list[T] = []
        while self._waiting and len(taken) < most:
            item = heapq.heappop(self._waiting)[-1]
            self._read()
            given = self._given[self._key(item)] = _Given(item)
            taken.append(self._give(given, worker))
        return taken

    def finish(self, id: Hashable) -> bool:
        """Takes note of a result; False: there is one already, and this one does not count."""
        given = self._given.pop(id, None)
        if given is None:
            return False
        for worker in given.workers:
            self._held[worker].discard(id)
        return True

    def give_back(self, id: Hashable, worker: str) -> None:
        """Lets an item wait again that a worker has, unless another one has it too."""
        given = self._given.get(id)
        if given is None or worker not in given.workers:
            return
        self._held[worker].discard(id)
        given.workers.discard(worker)
        if not given.workers:
            del self._given[id]
            self._wait(given.item)

    def lose(self, worker: str) -> int:
        """Gives back all that a worker has; returns how many items wait again."""
        before = len(self._waiting)
        for id in [id for id, given in self._given.items() if worker in given.workers]:
            self.give_back(id, worker)
        self._held.pop(worker, None)
        return len(self._waiting) - before

    def _singles(self, worker: str, most: int) -> list[_Given[T]]:
        """The oldest items that one other worker has, and no second one."""
        alone = (given for given in self._given.values() if len(given.workers) == 1)
        return list(itertools.islice(alone, max(most, 0)))

    def _give(self, given: _Given[T], worker: str) -> T:
        given.workers.add(worker)
        self._held[worker].add(self._key(given.item))
        return given.item

    def _wait(self, item: T) -> None:
        heapq.heappush(self._waiting, (-self._size(item), next(self._order), item))

    def _read(self) -> None:
        while not self._is_read and len(self._waiting) < self._window:
            for item in itertools.islice(self._rest, 1):
                self._wait(item)
                break
            else:
                self._is_read = True
