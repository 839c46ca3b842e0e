"""Data types of test-time search: settings, candidates, scores and results."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from stair_jax.data.examples import encode_row
from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Sampling
from stair_jax.decoding.task import Service
from stair_jax.search.judging.prefixes import Keeper
from stair_jax.settings import Settings, setting
from stair_jax.text.tokenizer import Tokenizer

# "open": unfinished; "done": finished, with an output block; "formless": finished without one;
# "cut": stopped by a length limit.
State = Literal["open", "done", "formless", "cut"]


class SamplingEngine(Keeper, Service, Protocol):
    """What test-time search needs of `decoding.engine.Engine`."""


@dataclass(frozen=True)
class Candidate:
    """A whole answer, or the first steps of one."""

    prompt: Prompt
    prompt_tokens: tuple[int, ...]  # rendered by the chat template
    tokens: tuple[int, ...]  # of the answer so far, as sampled
    path: tuple[int | str, ...]  # sample numbers from the root; identifies it in random keys
    state: State
    # Of prompt and answer in the engine's cache, if kept; released by the code that sampled it.
    handle: Handle | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scored:
    """The score of a candidate, and the cost of scoring it."""

    value: float  # -inf, or anything that is not finite, if missing
    generated_tokens: int = 0  # sampled for rollouts and judgements

    @property
    def is_missing(self) -> bool:
        """Whether there is no score: NaN compares with nothing, and +inf is no judgement either."""
        return not math.isfinite(self.value)


class Rated(NamedTuple):
    """A whole answer that a search has compared with others.

    Attributes:
      tokens: of the answer.
      score: -inf if missing.
    """

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Result:
    """The chosen answer to a prompt, with the cost of all that was sampled for it."""

    text: str  # the whole answer, tags visible
    tokens: tuple[int, ...]
    generated_tokens: int  # of all candidates, and of scoring them
    generated_steps: int  # of all candidates
    score: float  # -inf if missing
    unscored: int = 0  # candidates whose score was missing
    candidates: tuple[Rated, ...] = ()  # from which it was chosen at the end


@dataclass(frozen=True)
class TestTimeSettings(Settings):
    """Settings of best-of-N and beam search; the defaults are those of the paper.

    Attributes:
      n: number of full answers per prompt in best-of-N.
      successors: of beam search: steps tried after each answer kept.
      width: of beam search: answers kept after each step.
      max_depth: of beam search: steps, before what is open is sampled to its end.
      temperature: of steps and answers.
      top_p: of the same; 1 sets no limit.
      top_k: of the same; 0 sets no limit.
      max_step_tokens: of one step.
      max_answer_tokens: of a whole answer.
    """

    __test__ = False  # no class of tests, for pytest

    n: int = setting(8, least=1, most=2**16)
    successors: int = setting(4, least=1, most=2**16)
    width: int = setting(2, least=1, most=2**16)
    max_depth: int = setting(7, least=1, most=2**15)
    temperature: float = setting(0.6, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(50, least=0, most=2**24)
    max_step_tokens: int = setting(2048, least=1, most=2**24)
    max_answer_tokens: int = setting(4096, least=1, most=2**24)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        self.sampling(self.max_answer_tokens, ())

    def sampling(self, max_tokens: int, stop_ids: tuple[int, ...]) -> Sampling:
        """The engine's settings for one request."""
        return Sampling(self.temperature, self.top_k, self.top_p, max_tokens, stop_ids)


def start(
    engine: Keeper, tokenizer: Tokenizer, prompt: Prompt, tokens: Sequence[int] | None = None
) -> Candidate:
    """The empty answer to a prompt, with a handle in the engine's cache.

    Args:
      engine: that keeps it.
      tokenizer: of the model.
      prompt: what is answered.
      tokens: of a whole chat, rendered by the chat template; None: that of `prompt`.
    """
    rendered = tuple(encode_row(tokenizer, prompt) if tokens is None else tokens)
    return Candidate(prompt, rendered, (), (), "open", engine.keep(rendered))


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Token ids that end an answer: the closing tag of the output block and the stop tokens."""
    return tuple(dict.fromkeys([tokenizer.tags.output_close, *tokenizer.stop_ids]))


def extended(
    candidate: Candidate, completion: Completion, number: int, tokenizer: Tokenizer
) -> Candidate:
    """The candidate extended by a sampled completion.

    Args:
      candidate: what was continued.
      completion: tokens sampled after it, with its handle if it was kept.
      number: of the sample among those after `candidate`; appended to the path.
      tokenizer: of the model.
    """
    tokens = candidate.tokens + tuple(completion.tokens)
    state: State = "open"
    if completion.finish != "stop":
        state = "cut"
    elif tokens and tokens[-1] in end_ids(tokenizer):
        state = "done" if tokenizer.tags.output_open in tokens else "formless"
    path = (*candidate.path, number)
    return Candidate(
        candidate.prompt, candidate.prompt_tokens, tokens, path, state, completion.handle
    )


def release(engine: Keeper, candidates: Iterable[Candidate]) -> None:
    """Releases the handles of candidates in the engine's cache."""
    for candidate in candidates:
        if candidate.handle is not None:
            engine.release(candidate.handle)


def rank(candidate: Candidate, score: Scored) -> tuple[bool, float]:
    """Sort key: the best candidate has the highest; a missing score is the lowest.

    Answers that were cut off or have no output block rank below all others, whatever their score:
    they have no final answer for the user, and a PRM has been trained on few of the kind.
    """
    return candidate.state in ("open", "done"), known(score)


def known(score: Scored) -> float:
    """The value of a score; -inf if it is missing."""
    return -math.inf if score.is_missing else score.value
