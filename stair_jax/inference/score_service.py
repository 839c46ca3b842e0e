"""A reward model as a service of the driver: scores whole sequences, in batches of fixed shape."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from stair_jax.decoding.score_requests import PRM_SERVICE, ScoreCompletion, ScoreRequest

__all__ = ["PRM_SERVICE", "BatchScorer", "ScoreCompletion", "ScoreRequest", "ScoreService"]

# Calls of `step` that a batch that is not full waits for more rows.
_PATIENCE = 4


class BatchScorer(Protocol):
    """What scores batches (see `scorers.PrmScorer`)."""

    @property
    def rows(self) -> int: ...

    def bucket(self, length: int) -> int: ...

    def dispatch(self, sequences: Sequence[Sequence[int]], bucket: int) -> Any: ...


class ScoreService:
    """Gathers requests of like length into batches.

    A batch is dispatched when it is full, or after a few steps in which nothing was added to it;
    its scores are read in a later step, so that a device that also decodes never waits.
    """

    def __init__(self, scorer: BatchScorer):
        """A service without requests."""
        self._scorer = scorer
        self._waiting: dict[int, list[ScoreRequest]] = {}  # by bucket
        self._waited: dict[int, int] = {}  # by bucket, steps since the last request
        # The scores are jax.Arrays, whose stub lacks `is_ready`.
        self._running: list[tuple[list[ScoreRequest], Any]] = []
        self._cancelled: set[Hashable] = set()

    @property
    def pending(self) -> int:
        """Number of requests whose completions `step` has not returned."""
        waiting = sum(map(len, self._waiting.values()))
        return waiting + sum(len(requests) for requests, _ in self._running)

    def submit(self, requests: Iterable[ScoreRequest]) -> None:
        """Queues requests."""
        for request in requests:
            bucket = self._scorer.bucket(len(request.tokens))
            self._waiting.setdefault(bucket, []).append(request)
            self._waited[bucket] = 0

    def step(self) -> list[ScoreCompletion]:
        """Dispatches batches, and returns the scores that have arrived."""
        for bucket, waiting in list(self._waiting.items()):
            self._waited[bucket] += 1
            rows = self._scorer.rows
            while len(waiting) >= rows or (waiting and self._waited[bucket] > _PATIENCE):
                batch, waiting = waiting[:rows], waiting[rows:]
                scores = self._scorer.dispatch([request.tokens for request in batch], bucket)
                scores.copy_to_host_async()
                self._running.append((batch, scores))
            self._waiting[bucket] = waiting
        completions = []
        while self._running and self._running[0][1].is_ready():
            batch, scores = self._running.pop(0)
            values = np.asarray(scores).tolist()
            for request, value in zip(batch, values, strict=False):  # the rest is padding
                if request.id not in self._cancelled:
                    completions.append(ScoreCompletion(request.id, value))
                self._cancelled.discard(request.id)
        return completions

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops requests; what is being computed is not returned."""
        ids = set(ids)
        for bucket, waiting in self._waiting.items():
            self._waiting[bucket] = [request for request in waiting if request.id not in ids]
        for batch, _ in self._running:
            self._cancelled |= ids & {request.id for request in batch}
