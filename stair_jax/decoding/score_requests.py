"""Requests to a reward model and their completions."""

from collections.abc import Hashable
from dataclasses import dataclass

PRM_SERVICE = "prm"


@dataclass(frozen=True)
class ScoreRequest:
    """A sequence to score.

    Attributes:
        id: identifies the completion.
        tokens: token ids of the reward model, prompt and answer together.
        service: name of the service.
    """

    id: Hashable
    tokens: tuple[int, ...]
    service: str = PRM_SERVICE


@dataclass(frozen=True)
class ScoreCompletion:
    """The score of a sequence."""

    id: Hashable
    value: float
