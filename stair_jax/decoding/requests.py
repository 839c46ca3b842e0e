"""What an engine is asked and what it answers."""

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stair_jax.errors import UserError

MAX_STOP_IDS = 8
MAX_SCORE_IDS = 8

# The devices take settings as float32 and int32.
_LARGEST_TEMPERATURE = 1e38
_LARGEST_TOP_K = 2**31 - 1

Finish = Literal["stop", "length", "scored", "too_long"]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one request are sampled.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 sets no limit.
        top_p: 1 sets no limit; over the renormalised top-k, the crossing token is kept.
        max_tokens: sampled at most, the stop token included.
        stop_ids: at most 8 tokens, each of which ends the completion and belongs to it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 64
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises a UserError that names the first setting that cannot be."""
        if not 0 <= self.temperature <= _LARGEST_TEMPERATURE:
            raise UserError(
                f"temperature must be from 0 to {_LARGEST_TEMPERATURE}, not {self.temperature}"
            )
        if not 0 <= self.top_k <= _LARGEST_TOP_K:
            raise UserError(
                f"top_k must be from 0 (no limit) to {_LARGEST_TOP_K}, not {self.top_k}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if len(self.stop_ids) > MAX_STOP_IDS:
            raise UserError(f"stop_ids may hold {MAX_STOP_IDS} tokens, not {len(self.stop_ids)}")


@dataclass(frozen=True, eq=False)
class Handle:
    """A sequence that an engine keeps, until it is released; equal to itself only.

    Whether its keys and values are in the cache changes what a child costs, never what it gives.

    Attributes:
        tokens: of the whole sequence.
        parent: the handle that it continues, whose tokens it begins with.
    """

    tokens: tuple[int, ...]
    parent: "Handle | None" = None


@dataclass(frozen=True)
class Request:
    """A sequence to continue, or one whose next token is to be scored.

    Attributes:
        id: comes back with the completion.
        tokens: appended to those of `parent`.
        parent: a handle of the same engine.
        sampling: None asks for scores only.
        score_ids: the log-probabilities of these ids, at most 8, as the next token, without any
            decoding.
        key: two uint32 words; a sample depends on them, on the tokens and on the sampling only.
        keep: asks for a handle of the sequence with what was sampled.
        priority: the lowest goes first, and is the last to be put back when the cache is full.
    """

    id: Hashable
    tokens: tuple[int, ...]
    parent: Handle | None = None
    sampling: Sampling | None = None
    score_ids: tuple[int, ...] = ()
    key: tuple[int, int] = (0, 0)
    keep: bool = False
    priority: int = 0

    def __post_init__(self) -> None:
        """Raises a UserError when there is nothing to do, too much, or two things at once."""
        if not self.sequence:
            raise UserError(f"request {self.id!r} has no tokens: give it at least one")
        if (self.sampling is None) == (not self.score_ids):
            raise UserError(f"request {self.id!r} must have either sampling or score_ids")
        if len(self.score_ids) > MAX_SCORE_IDS:
            raise UserError(f"score_ids may hold {MAX_SCORE_IDS} ids, not {len(self.score_ids)}")

    @property
    def sequence(self) -> tuple[int, ...]:
        """The tokens of the parent and its own."""
        return (self.parent.tokens if self.parent else ()) + tuple(self.tokens)

    @property
    def last_token(self) -> int:
        """The last one of the sequence."""
        return self.tokens[-1] if self.tokens or self.parent is None else self.parent.tokens[-1]


@dataclass(frozen=True)
class Completion:
    """The answer to one request.

    Attributes:
        id: that of the request.
        tokens: sampled, with the stop token.
        logps: of the sampled tokens, under the untempered model.
        finish: "stop", "length" (max_tokens, or the context is full), "scored", or "too_long": the
            context has no room, so nothing was computed.
        scores: the log-probabilities of score_ids.
        handle: of the whole sequence, where the request said keep.
    """

    id: Hashable
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()
    finish: Finish = "length"
    scores: tuple[float, ...] = ()
    handle: Handle | None = None


@dataclass
class EngineStats:
    """Counts since the engine was made.

    Attributes:
        generated: sampled tokens, without those of requests that were put back.
        prefilled: tokens of prompts that went through the model, without padding.
        reused: tokens of prompts whose keys and values were in the cache already.
        calls: device programs run.
        slot_steps: slots times steps of decoding.
        busy_steps: those of them in which a slot had a token to sample.
        evicted: handles whose pages were given up for others.
        preempted: requests that were put back because the cache was full.
        wait_seconds: the host waited for the device.
        starved_seconds: at most so long had the device nothing to do.
    """

    generated: int = 0
    prefilled: int = 0
    reused: int = 0
    calls: int = 0
    slot_steps: int = 0
    busy_steps: int = 0
    evicted: int = 0
    preempted: int = 0
    wait_seconds: float = 0.0
    starved_seconds: float = 0.0

    @property
    def occupancy(self) -> float:
        """Share of the slots' steps that sampled a token."""
        return self.busy_steps / max(self.slot_steps, 1)

    @property
    def hit_rate(self) -> float:
        """Share of the prompts' tokens that were in the cache already."""
        return self.reused / max(self.reused + self.prefilled, 1)


class Submitter(Protocol):
    """The part of an engine that `run_all` needs."""

    @property
    def pending(self) -> int: ...

    def submit(self, requests: Iterable[Request]) -> None: ...

    def step(self) -> list[Completion]: ...


def request_key(seed: int, *path: Any) -> tuple[int, int]:
    """Two uint32 words out of a run's seed and any ints and strings, alike on every machine.

    Raises:
        TypeError: when an element is neither an int nor a string.
    """
    parts = (seed, *path)
    for part in parts:
        if not isinstance(part, (int, str)):
            raise TypeError(f"a key is made of ints and strings, not of {part!r}")
    # repr tells 1 from "1", and its quoting keeps ("ab", "c") apart from ("a", "bc").
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def run_all(engine: Submitter, requests: Iterable[Request]) -> dict[Hashable, Completion]:
    """Submits the requests and steps an idle engine until each has its completion, by id.

    Raises:
        ValueError: when two requests have one id, or the engine is not idle.
    """
    requests = list(requests)
    if engine.pending:
        raise ValueError("run_all needs an engine without pending requests")
    if len({request.id for request in requests}) < len(requests):
        raise ValueError("two requests have one id")
    engine.submit(requests)
    completions: dict[Hashable, Completion] = {}
    while engine.pending:
        completions.update((completion.id, completion) for completion in engine.step())
    return completions
