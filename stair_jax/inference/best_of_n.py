"""Best-of-N: sample N full answers per prompt and return the one with the highest score."""

from collections.abc import Sequence
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Request, request_key
from stair_jax.inference.candidates import (
    Candidate,
    Rated,
    Result,
    SamplingEngine,
    TestTimeSettings,
    end_ids,
    extended,
    known,
    rank,
    release,
    start,
)
from stair_jax.inference.prompt_search import SCORES, PromptSearch, search_prompts
from stair_jax.inference.scoring import Score, Scorer
from stair_jax.text.steps import split_steps
from stair_jax.text.tokenizer import Tokenizer


def best_of_n(
    engine: SamplingEngine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score | Scorer,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The best of `settings.n` sampled answers to each prompt; ties go to the first.

    Args:
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      prompts: with distinct ids.
      score: PRM or self-reward, see `scorers.py`, or a function of the candidates of a prompt.
      settings: n and the sampling settings.
      seed: of the run.

    Returns:
      one result per prompt, in their order.
    """
    return search_prompts(BestOfN, engine, tokenizer, prompts, score, settings, seed)


class BestOfN(PromptSearch):
    """Best-of-N for one prompt; the answers share its keys and values in the engine's cache."""

    _root: Candidate | None = None

    def start(self) -> list[Any]:
        """A request for each answer."""
        settings = self._settings
        self._sampled: dict[int, Candidate] = {}
        self._root = start(self._engine, self._tokenizer, self._prompt, self._tokens)
        sampling = settings.sampling(settings.max_answer_tokens, end_ids(self._tokenizer))
        return [
            Request(
                id=("answer", number),
                tokens=(),
                parent=self._root.handle,
                sampling=sampling,
                key=request_key(self._seed, self._prompt.id, "best_of_n", number),
            )
            for number in range(settings.n)
        ]

    def receive(self, completion: Completion) -> list[Any]:
        """Has the answers scored once all are there, and takes the best once all have scores."""
        assert isinstance(completion.id, tuple) and self._root is not None
        if completion.id[0] == "answer":
            number = completion.id[1]
            self._sampled[number] = extended(self._root, completion, number, self._tokenizer)
            if len(self._sampled) < self._settings.n:
                return []
            requests = self._scoring.add(SCORES, self._scorer.score(self._candidates))
        else:
            requests = self._scoring.receive(completion)
        if self._scoring.done:
            self._choose()
        return requests

    def close(self) -> None:
        """Gives back what is kept of the prompt."""
        super().close()
        if self._root is not None:
            release(self._engine, [self._root])
            self._root = None

    @property
    def _candidates(self) -> list[Candidate]:
        return [self._sampled[number] for number in range(self._settings.n)]

    def _choose(self) -> None:
        group, scored = self._candidates, self._scoring.results[SCORES]
        best = max(range(len(group)), key=lambda i: rank(group[i], scored[i]))
        sampled = [candidate.tokens for candidate in group]
        tags = self._tokenizer.tags
        self.result = Result(
            text=self._tokenizer.decode(group[best].tokens),
            tokens=group[best].tokens,
            generated_tokens=sum(map(len, sampled)) + sum(s.generated_tokens for s in scored),
            generated_steps=sum(len(split_steps(tokens, tags)) for tokens in sampled),
            score=known(scored[best]),
            unscored=sum(score.is_missing for score in scored),
            candidates=tuple(
                Rated(candidate.tokens, known(score))
                for candidate, score in zip(group, scored, strict=True)
            ),
        )
