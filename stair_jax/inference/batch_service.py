"""Services of the driver that compute batches of fixed shape: scores and log-likelihoods."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

# Calls of `step` that a batch that is not full waits for more rows.
_PATIENCE = 4


class _HasId(Protocol):
    @property
    def id(self) -> Hashable: ...


Q = TypeVar("Q", bound=_HasId)  # a request
C = TypeVar("C")  # a completion


class BatchService(ABC, Generic[Q, C]):
    """Gathers requests of like length into batches.

    A batch is dispatched when it is full, or after a few steps in which nothing was added to it;
    its results are read in a later step, so that a device that also decodes never waits.

    Attributes:
      MOST_RUNNING: batches whose results are on the device at once.
    """

    MOST_RUNNING: ClassVar[float] = math.inf

    def __init__(self) -> None:
        """A service without requests."""
        self._waiting: dict[Hashable, list[Q]] = {}  # by bucket
        self._waited: dict[Hashable, int] = {}  # by bucket, steps since the last request
        # The results are jax.Arrays, whose stub lacks `is_ready`.
        self._running: list[tuple[list[Q], Any]] = []
        self._cancelled: set[Hashable] = set()

    @abstractmethod
    def bucket(self, request: Q) -> Hashable:
        """What requests of one batch have in common, such as the length that they are padded to."""

    @abstractmethod
    def rows(self, bucket: Any) -> int:
        """Most requests in a batch."""

    @abstractmethod
    def dispatch(self, requests: Sequence[Q], bucket: Any) -> Any:
        """Starts to compute a batch; returns an array on the device, see `completion`."""

    @abstractmethod
    def completion(self, request: Q, row: int, results: np.ndarray) -> C:
        """The completion of the request of a row, from what `dispatch` computed, on the host."""

    @property
    def pending(self) -> int:
        """Number of requests whose completions `step` has not returned."""
        waiting = sum(map(len, self._waiting.values()))
        return waiting + sum(len(requests) for requests, _ in self._running)

    def submit(self, requests: Iterable[Q]) -> None:
        """Queues requests."""
        for request in requests:
            bucket = self.bucket(request)
            self._waiting.setdefault(bucket, []).append(request)
            self._waited[bucket] = 0

    def step(self) -> list[C]:
        """Dispatches batches, and returns the results that have arrived."""
        for bucket, waiting in list(self._waiting.items()):
            self._waited[bucket] += 1
            rows = self.rows(bucket)
            while len(self._running) < self.MOST_RUNNING and (
                len(waiting) >= rows or (waiting and self._waited[bucket] > _PATIENCE)
            ):
                batch, waiting = waiting[:rows], waiting[rows:]
                results = self.dispatch(batch, bucket)
                results.copy_to_host_async()
                self._running.append((batch, results))
            self._waiting[bucket] = waiting
        completions = []
        while self._running and self._running[0][1].is_ready():
            batch, results = self._running.pop(0)
            values = np.asarray(results)
            for row, request in enumerate(batch):  # the rest is padding
                if request.id not in self._cancelled:
                    completions.append(self.completion(request, row, values))
                self._cancelled.discard(request.id)
        return completions

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops requests; what is being computed is not returned."""
        ids = set(ids)
        for bucket, waiting in self._waiting.items():
            self._waiting[bucket] = [request for request in waiting if request.id not in ids]
        for batch, _ in self._running:
            self._cancelled |= ids & {request.id for request in batch}
