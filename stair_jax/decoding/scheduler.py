"""Which waiting requests share the next prefill."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from stair_jax.decoding.requests import Request

_DEFAULT_BUCKETS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


@dataclass(frozen=True)
class Waiting:
    """A request in a queue.

    Attributes:
        order: when it came.
        request: what was asked.
        sequence: all of its tokens.
        prompt: those that have to be prefilled.
    """

    order: int
    request: Request
    sequence: tuple[int, ...]
    prompt: tuple[int, ...]


@dataclass
class Queue:
    """Waiting requests by the bucket of their prompt's length.

    The bucket depends on the request alone, so that a prefill has the same shape, and hence the
    same result, whatever else is waiting.
    """

    buckets: tuple[int, ...]
    _queues: dict[int, deque[Waiting]] = field(default_factory=dict)
    _orders: count = field(default_factory=count)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def push(self, request: Request, sequence: tuple[int, ...], prompt: tuple[int, ...]) -> None:
        """Appends a request whose prompt fits into the largest bucket."""
        bucket = next(size for size in self.buckets if size >= len(prompt))
        waiting = Waiting(next(self._orders), request, sequence, prompt)
        self._queues.setdefault(bucket, deque()).append(waiting)

    @property
    def oldest(self) -> int:
        """The bucket of the request that waits longest."""
        return min(self._filled(), key=lambda bucket: self._queues[bucket][0].order)

    @property
    def longest(self) -> int:
        """The bucket with most requests."""
        return max(self._filled(), key=lambda bucket: len(self._queues[bucket]))

    def size(self, bucket: int) -> int:
        """How many wait in a bucket."""
        return len(self._queues[bucket])

    def take(self, bucket: int, max_prompts: int, max_rows: int) -> list[Waiting]:
        """Removes the first requests of a bucket: so many, and so many different prompts."""
        queue = self._queues[bucket]
        taken: list[Waiting] = []
        prompts: set[tuple[int, ...]] = set()
        while queue and len(taken) < max_rows:
            if len(prompts | {queue[0].prompt}) > max_prompts:
                break
            prompts.add(queue[0].prompt)
            taken.append(queue.popleft())
        return taken

    def _filled(self) -> list[int]:
        return [bucket for bucket, queue in self._queues.items() if queue]


def make_buckets(buckets: Sequence[int] | None, max_length: int) -> tuple[int, ...]:
    """Rising prompt lengths, the last of them `max_length`; None asks for the default steps."""
    steps = _DEFAULT_BUCKETS if buckets is None else buckets
    return (*sorted(size for size in set(steps) if 0 < size < max_length), max_length)
