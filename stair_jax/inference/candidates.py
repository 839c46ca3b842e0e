"""What test-time search works on: candidates, scorers, results (STAIR section 6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Sampling
from stair_jax.search.openings import Keeper
from stair_jax.settings import Settings, setting
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer

# Goes on; has its end; ended without an output block; ran into a limit.
State = Literal["open", "done", "formless", "cut"]


@dataclass(frozen=True)
class Candidate:
    """An answer, or the first steps of one."""

    prompt: Prompt
    prompt_tokens: tuple[int, ...]  # rendered
    tokens: tuple[int, ...]  # of the answer, as sampled
    path: tuple[int | str, ...]  # names the candidate in random keys
    state: State
    # Of prompt and answer, where the engine keeps them; whoever sampled them gives it back.
    handle: Handle | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scored:
    """The score of a candidate, and what it cost to find."""

    value: float  # -inf: none could be found
    generated_tokens: int = 0


Score = Callable[[Sequence[Candidate]], list[Scored]]


@dataclass(frozen=True)
class Result:
    """The answer that was chosen for a prompt."""

    text: str  # the whole answer, tags visible
    tokens: tuple[int, ...]
    generated_tokens: int  # of all candidates, and of scoring them
    generated_steps: int  # of all candidates
    score: float


@dataclass(frozen=True)
class TestTimeSettings(Settings):
    """Settings of best-of-N and beam search; the defaults are those of the paper.

    Attributes:
      n: of best-of-N: full answers a prompt.
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
    top_k: int = setting(50, least=0)
    max_step_tokens: int = setting(2048, least=1, most=2**24)
    max_answer_tokens: int = setting(4096, least=1, most=2**24)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        self.sampling(self.max_answer_tokens, ())

    def sampling(self, max_tokens: int, stop_ids: tuple[int, ...]) -> Sampling:
        """The engine's settings for one request."""
        return Sampling(self.temperature, self.top_k, self.top_p, max_tokens, stop_ids)


def start(engine: Keeper, tokenizer: Tokenizer, prompt: Prompt) -> Candidate:
    """The empty answer to a prompt, which the engine keeps."""
    tokens = tuple(encode_prompt(tokenizer, prompt.prompt))
    return Candidate(prompt, tokens, (), (), "open", engine.keep(tokens))


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end an answer."""
    return tuple(dict.fromkeys([tokenizer.tags.output_close, *tokenizer.stop_ids]))


def extended(
    candidate: Candidate, completion: Completion, number: int, tokenizer: Tokenizer
) -> Candidate:
    """The candidate with what was sampled after it."""
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
    """Gives the handles of candidates back."""
    for candidate in candidates:
        if candidate.handle is not None:
            engine.release(candidate.handle)


def rank(candidate: Candidate, value: float) -> tuple[bool, float]:
    """Sort key, best highest.

    An answer that was cut off, or has no output block and so no final answer, comes after all
    others: there is nothing in it to give to a user.
    """
    return candidate.state in ("open", "done"), value
