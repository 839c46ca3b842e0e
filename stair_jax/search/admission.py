"""How many trees may grow side by side: as many as the engine's cache carries.

A request pins the tokens of its sequence while it is in flight. A tree needs most where it has most
requests at once: when it is expanded, and in the visits after the budget.
"""

from collections import Counter
from collections.abc import Hashable

from stair_jax.decoding.requests import Completion, Handle, Request


class Admission:
    """Says whether one more tree fits beside those in flight.

    It should find room for the most that it may pin at once, while each of the others pins what a
    tree does on the whole. Both are the means of the trees so far.
    """

    def __init__(self, capacity: int, guess: int):
        """No tree is in flight.

        Args:
          capacity: tokens that the engine's cache holds.
          guess: the most that a tree may pin, before one is finished.
        """
        self._capacity = capacity
        self._peak = self._level = float(guess)
        self._finished = self._in_flight = 0
        self._tokens = 0  # of requests in flight, without those that are yet to be sampled
        self._requests = 0
        self._sampled = self._completed = 0

    def has_room(self, free: int) -> bool:
        """Whether another tree may start, if the engine's cache has `free` tokens not pinned.

        Requests that wait pin nothing yet, those that run will pin what they sample, and young
        trees have few: so `free` alone would let in too many.
        """
        sampled = self._sampled / max(self._completed, 1)
        now = self._tokens + self._requests * sampled
        pinned = max(now, self._in_flight * self._level)
        return min(free, self._capacity - pinned) >= self._peak

    def started(self) -> None:
        """Counts a tree in."""
        self._in_flight += 1

    def ended(self) -> None:
        """Counts a tree out."""
        self._in_flight -= 1

    def learn(self, peak: float, level: float) -> None:
        """Takes into the means what a finished tree pinned at most, and on the whole."""
        self._finished += 1
        share = 1 / self._finished
        self._peak += share * (peak - self._peak)
        self._level += share * (level - self._level)

    def submitted(self) -> None:
        """Counts a request in."""
        self._requests += 1

    def completed(self, sampled: int) -> None:
        """Counts a request out that sampled so many tokens."""
        self._requests -= 1
        self._sampled += sampled
        self._completed += 1

    def add(self, tokens: int) -> None:
        """Counts tokens of requests in flight in, or out where negative."""
        self._tokens += tokens


class Load:
    """The requests of one tree in flight, and the most tokens that they ever pinned at once.

    A handle that several of them continue counts once.
    """

    def __init__(self, admission: Admission):
        """Counts the tree in; nothing of it is in flight."""
        self._admission = admission
        admission.started()
        self._sizes: list[int] = []  # of everything that was ever pinned, by number
        self._events: list[int] = []  # its number where it began, the complement where it ended
        self._open: dict[Hashable, int] = {}
        self._parents: dict[Hashable, Handle | None] = {}
        self._users: Counter[Handle] = Counter()

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._parents)

    def submitted(self, request: Request) -> None:
        """Counts a request in."""
        self._admission.submitted()
        parent = self._parents[request.id] = request.parent
        if parent is not None:
            self._users[parent] += 1
            if self._users[parent] == 1:
                self._begin(parent, len(parent.tokens))
        self._begin(request.id, len(request.tokens))

    def completed(self, completion: Completion) -> None:
        """Counts its request out."""
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
        """Counts the tree out; what it pinned is a lesson if it came to its end."""
        self._admission.ended()
        if finished:
            self._admission.learn(*self.pinned())

    def pinned(self) -> tuple[float, float]:
        """Tokens at most, and on the whole; a request counts with all that it came to sample."""
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
