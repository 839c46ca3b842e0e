"""A reward model as a service of the driver: scores whole sequences, in batches of fixed shape."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from stair_jax.decoding.score_requests import PRM_SERVICE, ScoreCompletion, ScoreRequest
from stair_jax.inference.batch_service import BatchService

__all__ = ["PRM_SERVICE", "BatchScorer", "ScoreCompletion", "ScoreRequest", "ScoreService"]


class BatchScorer(Protocol):
    """What scores batches (see `scorers.PrmScorer`)."""

    @property
    def rows(self) -> int: ...

    def bucket(self, length: int) -> int: ...

    def dispatch(self, sequences: Sequence[Sequence[int]], bucket: int) -> Any: ...


class ScoreService(BatchService[ScoreRequest, ScoreCompletion]):
    """Scores sequences of like length in batches."""

    def __init__(self, scorer: BatchScorer):
        """A service without requests."""
        super().__init__()
        self._scorer = scorer

    def bucket(self, request: ScoreRequest) -> int:
        """Length to which the sequence is padded."""
        return self._scorer.bucket(len(request.tokens))

    def rows(self, bucket: Hashable) -> int:
        """The same for all lengths."""
        return self._scorer.rows

    def dispatch(self, requests: Sequence[ScoreRequest], bucket: Any) -> Any:
        """Starts to score: `[rows]` float32."""
        return self._scorer.dispatch([request.tokens for request in requests], bucket)

    def completion(self, request: ScoreRequest, row: int, results: np.ndarray) -> ScoreCompletion:
        """The score of a row."""
        return ScoreCompletion(request.id, float(results[row]))
