"""Step-level beam search guided by a reward model, the paper's test-time search."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Request, request_key, run_all
from stair_jax.inference.candidates import (
    Candidate,
    Result,
    Score,
    Scored,
    TestTimeSettings,
    end_ids,
    extended,
    known,
    rank,
    release,
    start,
)
from stair_jax.search.runner import EngineProtocol
from stair_jax.text.steps import split_steps
from stair_jax.text.tokenizer import Tokenizer


@dataclass
class _Beam:
    """The beam of one prompt: its candidates, best first, and their cost so far."""

    kept: list[tuple[Candidate, Scored]]
    generated_tokens: int = 0  # of all candidates ever sampled, and of scoring them
    generated_steps: int = 0  # of all candidates ever sampled
    unscored: int = 0  # of them, those whose score was missing
    fresh: list[Candidate] = field(default_factory=list)  # sampled, not scored yet

    @property
    def open(self) -> list[Candidate]:
        return [candidate for candidate, _ in self.kept if candidate.state == "open"]


def beam_search(
    engine: EngineProtocol,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The best answer to each prompt by beam search with `settings.width` candidates.

    In each round `successors` next steps are sampled for every unfinished candidate (for the empty
    one `width` times as many, so that each round samples up to `width * successors` steps). Exact
    duplicates are dropped, and the best `width` of the new and the finished candidates are kept.
    Candidates that are unfinished after `max_depth` steps are sampled to the end. The prompts go
    through the rounds together, to fill the engine's slots. Unfinished candidates stay in the
    engine's cache, so that their successors share them.

    Args:
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      prompts: with distinct ids.
      score: PRM or self-reward, see `scorers.py`.
      settings: successors, width, max_depth and the sampling settings.
      seed: of the run.

    Returns:
      one result per prompt, in their order.
    """
    nothing = Scored(float("-inf"))
    beams = [_Beam([(start(engine, tokenizer, prompt), nothing)]) for prompt in prompts]
    sampler = _Sampler(engine, tokenizer, settings, seed)
    for depth in range(settings.max_depth):
        count = settings.successors * (1 if depth else settings.width)
        if not sampler.extend(beams, count, whole=False):
            break
        _keep_best(engine, beams, score, settings.width)
    if sampler.extend(beams, 1, whole=True):
        _keep_best(engine, beams, score, settings.width)
    for beam in beams:
        release(engine, beam.open)
    return [_result(beam, tokenizer) for beam in beams]


class _Sampler:
    """Samples continuations of the unfinished candidates of all beams at once."""

    def __init__(
        self, engine: EngineProtocol, tokenizer: Tokenizer, settings: TestTimeSettings, seed: int
    ):
        self._engine, self._settings, self._seed = engine, settings, seed
        self._tokenizer, self._tags = tokenizer, tokenizer.tags
        self._ends = end_ids(tokenizer)

    def extend(self, beams: Sequence[_Beam], count: int, whole: bool) -> bool:
        """Samples `count` continuations of every unfinished candidate into `fresh`.

        Args:
          beams: of all prompts.
          count: continuations per candidate.
          whole: sample to the end of the answer rather than one step.

        Returns:
          whether anything was sampled.
        """
        limit = self._settings.max_answer_tokens if whole else self._settings.max_step_tokens
        stops = self._ends if whole else (self._tags.reasoning_close, *self._ends)
        requests, parents = [], {}
        for index, beam in enumerate(beams):
            for candidate in beam.open:
                room = min(limit, self._settings.max_answer_tokens - len(candidate.tokens))
                # An answer that has reached its length limit cannot be continued.
                for number in range(count if room > 0 else 0):
                    id = (index, candidate.path, number)
                    parents[id] = candidate
                    key = request_key(
                        self._seed, candidate.prompt.id, *candidate.path, "beam", number
                    )
                    requests.append(
                        Request(
                            id=id,
                            tokens=(),
                            parent=candidate.handle,
                            sampling=self._settings.sampling(room, stops),
                            key=key,
                            keep=not whole,
                            priority=index,
                        )
                    )
        completions = run_all(self._engine, requests)
        for id, parent in parents.items():
            completion, beam = completions[id], beams[id[0]]
            beam.fresh.append(extended(parent, completion, id[2], self._tokenizer))
            beam.generated_tokens += len(completion.tokens)
            beam.generated_steps += len(split_steps(completion.tokens, self._tags))
        return bool(requests)


def _keep_best(engine: EngineProtocol, beams: Sequence[_Beam], score: Score, width: int) -> None:
    """Scores the new candidates of all beams at once, and keeps the best `width` of each beam."""
    sampled = [beam.fresh for beam in beams]
    for beam in beams:
        beam.fresh = _distinct(beam.fresh)
    scores = iter(score([candidate for beam in beams for candidate in beam.fresh]))
    for beam, all_fresh in zip(beams, sampled, strict=True):
        if not beam.fresh:  # all of its candidates are finished
            continue
        scored = [(candidate, next(scores)) for candidate in beam.fresh]
        beam.generated_tokens += sum(value.generated_tokens for _, value in scored)
        beam.unscored += sum(value.is_missing for _, value in scored)
        # Unfinished candidates are replaced by their successors; finished ones compete with these.
        ended = [(candidate, value) for candidate, value in beam.kept if candidate.state != "open"]
        pool = ended + scored
        pool.sort(key=lambda item: rank(*item), reverse=True)
        candidates = [*beam.open, *all_fresh]
        beam.kept, beam.fresh = pool[:width], []
        # Release the cache of everything sampled or kept before, except for what is still open.
        needed = {candidate.handle for candidate in beam.open}
        release(engine, [other for other in candidates if other.handle not in needed])


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without exact duplicates (of their tokens), in order."""
    first: dict[tuple[int, ...], Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.tokens, candidate)
    return list(first.values())


def _result(beam: _Beam, tokenizer: Tokenizer) -> Result:
    best, scored = max(beam.kept, key=lambda item: (item[0].state == "done", rank(*item)))

    return Result(
        text=tokenizer.decode(best.tokens),
        tokens=best.tokens,
        generated_tokens=beam.generated_tokens,
        generated_steps=beam.generated_steps,
        score=known(scored),
        unscored=beam.unscored,
    )
