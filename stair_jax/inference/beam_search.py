"""Step-level beam search guided by a reward model, the paper's test-time search."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Request, request_key
from stair_jax.inference.candidates import (
    Candidate,
    Rated,
    Result,
    SamplingEngine,
    Scored,
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


def beam_search(
    engine: SamplingEngine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score | Scorer,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The best answer to each prompt by beam search with `settings.width` candidates.

    In each round `successors` next steps are sampled for every unfinished candidate (for the empty
    one `width` times as many, so that each round samples up to `width * successors` steps). Exact
    duplicates are dropped, and the best `width` of the new and the finished candidates are kept.
    Candidates that are unfinished after `max_depth` steps are sampled to the end. Each prompt goes
    through its rounds by itself. Unfinished candidates stay in the engine's cache, so that their
    successors share them.

    Args:
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      prompts: with distinct ids.
      score: PRM or self-reward, see `scorers.py`, or a function of the candidates of a prompt.
      settings: successors, width, max_depth and the sampling settings.
      seed: of the run.

    Returns:
      one result per prompt, in their order.
    """
    return search_prompts(BeamSearch, engine, tokenizer, prompts, score, settings, seed)


class BeamSearch(PromptSearch):
    """The beam search of one prompt: samples successors, has them scored, keeps the best.

    Attributes:
      final_rank: sort key of the result among those of other searches of the prompt; set once
        `done`.
    """

    final_rank: tuple[bool, tuple[bool, float]]

    def __init__(self, *arguments: Any, path: tuple[int | str, ...] = (), **options: Any):
        """A task that has asked nothing yet; see `PromptSearch`.

        Args:
          *arguments: of `PromptSearch`.
          path: begins those of all candidates; tells searches of one prompt apart in random keys.
          **options: of `PromptSearch`.
        """
        super().__init__(*arguments, **options)
        self._path = path
        self._kept: list[tuple[Candidate, Scored]] = []  # best first
        self._depth = 0  # rounds that have begun
        # Of the round: what is continued under which request, in order, and what came of it.
        self._parents: dict[tuple[Any, ...], Candidate] = {}
        self._sampled: dict[tuple[Any, ...], Candidate] = {}
        self._fresh: list[Candidate] = []  # without duplicates
        self._generated_tokens = self._generated_steps = self._unscored = 0

    def start(self) -> list[Any]:
        """Requests for the first steps."""
        root = start(self._engine, self._tokenizer, self._prompt, self._tokens)
        root = replace(root, path=self._path)
        self._kept = [(root, Scored(float("-inf")))]
        return self._next_round()

    def receive(self, completion: Completion) -> list[Any]:
        """Has the successors scored once all are there; keeps the best once all have scores."""
        assert isinstance(completion.id, tuple)
        if completion.id[0] != "step":
            requests = self._scoring.receive(completion)
        else:
            self._take(completion)
            if len(self._sampled) < len(self._parents):
                return []
            self._fresh = _distinct([self._sampled[id] for id in self._parents])
            requests = self._scoring.add(SCORES, self._scorer.score(self._fresh))
        if not self._scoring.done:
            return requests
        self._keep_best(self._scoring.results.pop(SCORES))
        return requests + self._next_round()

    def close(self) -> None:
        """Gives back what is kept of the prompt and of the candidates."""
        super().close()
        release(self._engine, [*self._open, *self._sampled.values()])
        self._kept, self._sampled = [], {}

    @property
    def _open(self) -> list[Candidate]:
        return [candidate for candidate, _ in self._kept if candidate.state == "open"]

    def _next_round(self) -> list[Request]:
        """Requests of the next round; the result if there is nothing left to continue."""
        settings, depth = self._settings, self._depth
        whole = depth == settings.max_depth
        count = 1 if whole else settings.successors * (1 if depth else settings.width)
        self._depth += 1
        requests = self._successors(count, whole) if depth <= settings.max_depth else []
        if not requests:  # all have ended, or have reached their length limit
            self._choose()
        return requests

    def _successors(self, count: int, whole: bool) -> list[Request]:
        """Requests for continuations of the unfinished candidates.

        Args:
          count: continuations per candidate.
          whole: sample to the end of the answer rather than one step.
        """
        settings = self._settings
        limit = settings.max_answer_tokens if whole else settings.max_step_tokens
        ends = end_ids(self._tokenizer)
        stops = ends if whole else (self._tokenizer.tags.reasoning_close, *ends)
        requests = []
        self._parents, self._sampled = {}, {}
        for candidate in self._open:
            room = min(limit, settings.max_answer_tokens - len(candidate.tokens))
            # An answer that has reached its length limit cannot be continued.
            for number in range(count if room > 0 else 0):
                id = ("step", candidate.path, number)
                self._parents[id] = candidate
                key = request_key(self._seed, self._prompt.id, *candidate.path, "beam", number)
                requests.append(
                    Request(
                        id=id,
                        tokens=(),
                        parent=candidate.handle,
                        sampling=settings.sampling(room, stops),
                        key=key,
                        keep=not whole,
                    )
                )
        return requests

    def _take(self, completion: Completion) -> None:
        assert isinstance(completion.id, tuple)
        parent, tokenizer = self._parents[completion.id], self._tokenizer
        self._sampled[completion.id] = extended(parent, completion, completion.id[2], tokenizer)
        self._generated_tokens += len(completion.tokens)
        self._generated_steps += len(split_steps(completion.tokens, tokenizer.tags))

    def _keep_best(self, scores: list[Scored]) -> None:
        """Keeps the best `width` of the scored candidates and of those that ended before."""
        scored = list(zip(self._fresh, scores, strict=True))
        self._generated_tokens += sum(value.generated_tokens for value in scores)
        self._unscored += sum(value.is_missing for value in scores)
        # Unfinished candidates are replaced by their successors; finished ones compete with these.
        ended = [(candidate, value) for candidate, value in self._kept if candidate.state != "open"]
        pool = ended + scored
        pool.sort(key=lambda item: rank(*item), reverse=True)
        candidates = [*self._open, *self._sampled.values()]
        self._kept, self._fresh, self._sampled = pool[: self._settings.width], [], {}
        # Release the cache of everything sampled or kept before, except for what is still open.
        needed = {candidate.handle for candidate in self._open}
        unneeded = [other for other in candidates if other.handle not in needed]
        release(self._engine, unneeded)

    def _choose(self) -> None:
        best, scored = max(self._kept, key=lambda item: _final_rank(*item))
        self.final_rank = _final_rank(best, scored)
        self.result = Result(
            text=self._tokenizer.decode(best.tokens),
            tokens=best.tokens,
            generated_tokens=self._generated_tokens,
            generated_steps=self._generated_steps,
            score=known(scored),
            unscored=self._unscored,
            candidates=tuple(Rated(each.tokens, known(score)) for each, score in self._kept),
        )


def _final_rank(candidate: Candidate, scored: Scored) -> tuple[bool, tuple[bool, float]]:
    """Sort key of the answers that are left at the end: those with an output block come first."""
    return candidate.state == "done", rank(candidate, scored)


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without exact duplicates (of their tokens), in order."""
    first: dict[tuple[int, ...], Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.tokens, candidate)
    return list(first.values())
