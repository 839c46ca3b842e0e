"""The scores that a reward model gives to an answer, step by step."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from stair_jax.decoding.task import GatherTask, OuterTask, Task
from stair_jax.inference.score_service import ScoreCompletion, ScoreRequest
from stair_jax.text.steps import split_steps
from stair_jax.text.tokenizer import Tokenizer


class StepScore(NamedTuple):
    """A step of an answer, or its output block.

    Attributes:
      tokens: of the step, up to its closing tag.
      score: of the answer up to its end.
    """

    tokens: tuple[int, ...]
    score: float


class StepScores(OuterTask[list[StepScore]]):
    """The scores of an answer at the end of each of its steps."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], answer: Sequence[int]):
        """A task that has asked nothing yet.

        Args:
          tokenizer: of the model.
          prompt: its token ids, up to where the answer starts.
          answer: its token ids; what stands behind its last closing tag counts as a step. At least
            one.
        """
        self._steps = split_steps(answer, tokenizer.tags)
        ends = itertools.accumulate(map(len, self._steps))
        whole = (*prompt, *answer)
        super().__init__(GatherTask(_Score(whole[: len(prompt) + end]) for end in ends))

    def make_result(self, found: list[float]) -> list[StepScore]:
        """The steps with their scores."""
        return [
            StepScore(tuple(step), score) for step, score in zip(self._steps, found, strict=True)
        ]


class _Score(Task[float]):
    """The score of one sequence, at its last token."""

    def __init__(self, tokens: Sequence[int]):
        self._tokens = tuple(tokens)

    def start(self) -> list[Any]:
        return [ScoreRequest((), self._tokens)]

    def receive(self, completion: ScoreCompletion) -> list[Any]:
        self.result = completion.value
        return []
