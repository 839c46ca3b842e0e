"""A sequence whose end is to be scored: the request of all services of log-probabilities."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig

# Sequences are padded to a power of two, this one or more.
_SHORTEST = 64

C = TypeVar("C")  # a completion


@dataclass(frozen=True)
class ScoredSequence:
    """A sequence whose end is to be scored.

    Attributes:
      id: identifies the completion.
      tokens: token ids of the whole sequence.
      start: position of the first token that is scored, given all before it; at least 1.
    """

    id: Hashable
    tokens: tuple[int, ...]
    start: int = 1

    def __post_init__(self) -> None:
        """Raises a UserError if no token would be scored, or one that nothing stands before."""
        if not 1 <= self.start < len(self.tokens):
            raise UserError(
                f"request {self.id!r} scores from token {self.start} of {len(self.tokens)}: give "
                "it at least one token to score, and one before it"
            )


class ScoringTask(Task[C]):
    """The completion of one request."""

    def __init__(self, request: ScoredSequence):
        """A task that has asked nothing yet."""
        self._request = request

    def start(self) -> list[ScoredSequence]:
        """The only request."""
        return [self._request]

    def receive(self, completion: C) -> list[ScoredSequence]:
        """Takes the result."""
        self.result = completion
        return []


def bucket_length(config: ModelConfig, length: int) -> int:
    """Length to which a sequence of `length` tokens is padded: a power of two, or the window.

    Raises:
      UserError: the sequence is longer than a sliding window of the model.
    """
    return config.padded_length(length, max(_SHORTEST, 1 << (length - 1).bit_length()))
