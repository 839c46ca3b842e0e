"""Admission control: how many trees may be in flight, by the capacity of the engine's KV cache.

A request pins the tokens of its sequence in the cache while it is in flight. A tree pins most when
it has most requests at once: during an expansion, and in the visits after the budget. With too many
trees the engine has to evict and recompute what they share. All sizes are in tokens.
"""

from collections import Counter
from collections.abc import Hashable

from stair_jax.decoding.requests import Completion, Handle, Request


class Admission:
    """Decides whether one more tree fits beside those in flight.

    A new tree should find room for its peak while each of the others pins the average of a tree.
    Trees peak at different times, so reserving the peak for all of them would waste cache. Both
    numbers are running means over the finished trees.
    """

    def __init__(self, capacity: int, guess: int):
        """Starts with no tree in flight.

        Args:
          capacity: tokens that the engine's cache holds.
          guess: tokens for a tree's peak and average, until the first tree is finished.
        """
        self._capacity = capacity
        self._peak = self._level = float(guess)
        self._finished = self._in_flight = 0
        self._tokens = 0  # of the sequences in flight, without what they will still sample
        self._requests = 0
        self._sampled = self._completed = 0

    def has_room(self, free: int) -> bool:
        """Whether another tree may start, if `free` tokens of the engine's cache are not pinned.

        `free` alone would admit too many trees: queued requests pin nothing yet, running ones will
        still pin what they sample, and young trees have only a few requests.
        """
        sampled = self._sampled / max(self._completed, 1)
        now = self._tokens + self._requests * sampled
        pinned = max(now, self._in_flight * self._level)
        return min(free, self._capacity - pinned) >= self._peak

    def started(self) -> None:
        """Counts a tree that starts."""
        self._in_flight += 1

    def ended(self) -> None:
        """Counts a tree that ends."""
        self._in_flight -= 1

    def learn(self, peak: float, level: float) -> None:
        """Updates the running means with the peak and the average of a finished tree, in tokens."""
        self._finished += 1
        share = 1 / self._finished  # the first finished tree replaces the initial guess
        self._peak += share * (peak - self._peak)
        self._level += share * (level - self._level)

    def submitted(self) -> None:
        """Counts a request that was submitted."""
        self._requests += 1

    def completed(self, sampled: int) -> None:
        """Counts a completed request that sampled `sampled` tokens."""
        self._requests -= 1
        self._sampled += sampled
        self._completed += 1

    def add(self, tokens: int) -> None:
        """Adds to the tokens of requests in flight; negative to remove."""
        self._tokens += tokens


class Load:
    """What the requests of one tree pin in the cache, now and over its lifetime, in tokens.

    A handle that several requests continue counts once, as they share its pages.
    """

    def __init__(self, admission: Admission):
        """Registers a tree that starts, with no request in flight."""
        self._admission = admission
        admission.started()
        # A log of intervals: the final size of each is known only when it ends, so that peak and
        # average are computed at the end of the tree (`pinned`).
        self._sizes: list[int] = []  # tokens of each interval
        self._events: list[int] = []  # index of the interval at its start, ~index at its end
        self._open: dict[Hashable, int] = {}
        self._parents: dict[Hashable, Handle | None] = {}
        self._elsewhere: set[Hashable] = set()  # requests to other services than the engine
        self._users: Counter[Handle] = Counter()

    def __len__(self) -> int:
        """Number of requests in flight."""
        return len(self._parents) + len(self._elsewhere)

    def submitted(self, request: Request) -> None:
        """Counts a request of this tree that was submitted; one elsewhere pins nothing."""
        if request.service:
            self._elsewhere.add(request.id)
            return
        self._admission.submitted()
        parent = self._parents[request.id] = request.parent
        if parent is not None:
            self._users[parent] += 1
            if self._users[parent] == 1:
                self._begin(parent, len(parent.tokens))
        self._begin(request.id, len(request.tokens))

    def completed(self, completion: Completion) -> None:
        """Counts a request of this tree that is done."""
        if completion.id in self._elsewhere:
            self._elsewhere.remove(completion.id)
            return
        sampled = len(completion.tokens)
        self._admission.completed(sampled)
        self._sizes[self._open[completion.id]] += sampled
        self._end(completion.id, sampled)
        parent = self._parents.pop(completion.id)
        if parent is not None:
            self._users[parent] -= 1
            if not self._users[parent]:
                del self._users[parent]
                self._end(parent, 0)

    def close(self, finished: bool) -> None:
        """Unregisters the tree; its peak and average enter the means only if it is `finished`."""
        self._admission.ended()
        if finished:
            self._admission.learn(*self.pinned())

    def pinned(self) -> tuple[float, float]:
        """(peak, average over the events) of the tokens pinned.

        A request counts from its start with all the tokens that it will have sampled at its end:
        an upper bound, as the room for them has to be there.
        """
        now, levels = 0, []
        for event in self._events:
            now += self._sizes[event] if event >= 0 else -self._sizes[~event]
            levels.append(now)
        return max(levels, default=0), sum(levels) / max(len(levels), 1)

    def _begin(self, key: Hashable, tokens: int) -> None:
        number = self._open[key] = len(self._sizes)
        self._sizes.append(tokens)
        self._events.append(number)
        self._admission.add(tokens)

    def _end(self, key: Hashable, sampled: int) -> None:
        number = self._open.pop(key)
        self._events.append(~number)
        self._admission.add(sampled - self._sizes[number])
