"""Diverse verifier tree search (DVTS): beam searches of width 1 side by side, the best answer wins.

From Beeching, Tunstall and Rush, "Scaling test-time compute with open models" (Hugging Face, 2024).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.task import Task, TaskGroup
from stair_jax.inference.beam_search import BeamSearch
from stair_jax.inference.candidates import (
    Candidate,
    Rated,
    Result,
    SamplingEngine,
    Scored,
    TestTimeSettings,
)
from stair_jax.inference.prompt_search import PromptSearch, search_prompts
from stair_jax.inference.scoring import PromptScorer, Score, Scorer
from stair_jax.text.tokenizer import Tokenizer


def dvts(
    engine: SamplingEngine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score | Scorer,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The best answer to each prompt out of `settings.width` independent subtrees.

    Each subtree is a beam search of width 1: of `successors` next steps the best one is kept. No
    subtree competes with another before its end, so that the answers differ more than those of a
    beam search with the same number of candidates. Of the subtrees' answers the one with the best
    score is returned; ties go to the first.

    Args:
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      prompts: with distinct ids.
      score: PRM or self-reward, see `scorers.py`, or a function of the candidates of a prompt.
      settings: width, successors, max_depth and the sampling settings.
      seed: of the run.

    Returns:
      one result per prompt, in their order.
    """
    return search_prompts(Dvts, engine, tokenizer, prompts, score, settings, seed)


class Dvts(PromptSearch):
    """DVTS for one prompt: its subtrees side by side, with random keys of their own."""

    def __init__(self, *arguments: Any, **options: Any):
        """A task that has asked nothing yet; see `PromptSearch`."""
        super().__init__(*arguments, **options)
        scorer = _Opened(self._scorer)
        settings = replace(self._settings, width=1)
        self._subtrees = [
            BeamSearch(
                self._engine,
                self._tokenizer,
                self._prompt,
                scorer,
                settings,
                self._seed,
                self._tokens,
                path=("subtree", number),
            )
            for number in range(self._settings.width)
        ]
        self._group = TaskGroup()

    def start(self) -> list[Any]:
        """Requests for the first steps of all subtrees."""
        requests = []
        for number, subtree in enumerate(self._subtrees):
            requests += self._group.add(number, subtree)
        self._end()
        return requests

    def receive(self, completion: Any) -> list[Any]:
        """Sends a completion on to its subtree."""
        requests = self._group.receive(completion)
        self._end()
        return requests

    def close(self) -> None:
        """Gives back what is kept of the prompt."""
        self._group.close()
        super().close()

    def _end(self) -> None:
        if self._group.done:
            self.result = _joined(self._subtrees)


def _joined(subtrees: Sequence[BeamSearch]) -> Result:
    """The answer of the best subtree, at the cost of all of them."""
    best = max(subtrees, key=lambda subtree: subtree.final_rank).result
    results = [subtree.result for subtree in subtrees]
    return Result(
        text=best.text,
        tokens=best.tokens,
        generated_tokens=sum(result.generated_tokens for result in results),
        generated_steps=sum(result.generated_steps for result in results),
        score=best.score,
        unscored=sum(result.unscored for result in results),
        candidates=tuple(Rated(result.tokens, result.score) for result in results),
    )


class _Opened:
    """A scorer whose prompt is open already, and is closed by whoever opened it."""

    def __init__(self, scorer: PromptScorer):
        self.services: dict[str, Any] = {}
        self._scorer = scorer

    def open(self, prompt: Prompt) -> "_Opened":
        return self

    def score(self, candidates: Sequence[Candidate]) -> Task[list[Scored]]:
        return self._scorer.score(candidates)

    def close(self) -> None:
        """Nothing: the subtrees share what is kept."""
