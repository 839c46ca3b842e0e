"""Requests, completions and handles: the interface of an engine."""

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeVar

from stair_jax.errors import UserError

# Widths of the device arrays that hold these ids for each slot.
MAX_STOP_IDS = 8
MAX_SCORE_IDS = 8

# Settings are stored on the device as float32 and int32: larger ones would overflow silently.
_LARGEST_TEMPERATURE = 1e38
_LARGEST_TOP_K = 2**31 - 1

Finish = Literal["stop", "length", "scored", "too_long"]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one request are sampled.

    The filters apply in this order: temperature, top-k, top-p.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: number of tokens kept; 0 means no limit.
        top_p: probability mass kept, of the distribution renormalised over the top k; the token
            that crosses it is kept. 1 means no limit.
        max_tokens: maximum number of sampled tokens, including the stop token.
        stop_ids: at most 8 token ids; each ends the completion and is part of it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 64
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UserError: names the first setting that is out of range.
        """
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


# Compared by identity: two handles of the same tokens are kept and released apart.
@dataclass(frozen=True, eq=False)
class Handle:
    """A sequence that an engine keeps until it is released: a node of the prefix tree.

    Whether its keys and values are in the cache affects the cost of its children, not their
    results.

    Attributes:
        tokens: token ids of the whole sequence.
        parent: the handle that it continues, whose tokens are a prefix of its own.
        adapter: of the engine, by which its keys and values are computed; that of the parent.
    """

    tokens: tuple[int, ...]
    parent: "Handle | None" = None
    adapter: int = 0


@dataclass(frozen=True)
class Request:
    """A sequence to continue, or one whose next token is to be scored.

    Attributes:
        id: identifies the completion.
        tokens: token ids, appended to those of `parent`.
        parent: a handle of the same engine.
        sampling: how to sample; None for a scoring request.
        score_ids: at most 8 token ids, whose log-probabilities as the next token are returned.
            Nothing is sampled.
        key: two uint32 words, the random key. A sample depends only on it, the tokens and
            `sampling`.
        keep: whether to return a handle of the sequence including the sampled tokens.
        priority: the lowest goes first, and is the last to be preempted when the cache is full.
        stream: whether `Engine.take_tokens` hands out the tokens as they are sampled.
        service: which service of a driver the request is for; "" is its engine.
        adapter: which model of the engine answers, see `Engine`: 0 is the base; None: that of the
            parent, or without one the engine's own (`Engine.adapter`).
    """

    id: Hashable
    tokens: tuple[int, ...]
    parent: Handle | None = None
    sampling: Sampling | None = None
    score_ids: tuple[int, ...] = ()
    key: tuple[int, int] = (0, 0)
    keep: bool = False
    priority: int = 0
    stream: bool = False
    service: str = ""
    adapter: int | None = None

    def __post_init__(self) -> None:
        """Checks the request.

        Raises:
            UserError: there are no tokens, too many score ids, or not exactly one of `sampling` and
                `score_ids`.
        """
        if not self.tokens and self.parent is None:  # no handle is empty
            raise UserError(f"request {self.id!r} has no tokens: give it at least one")
        if (self.sampling is None) == (not self.score_ids):
            raise UserError(f"request {self.id!r} must have either sampling or score_ids")
        if len(self.score_ids) > MAX_SCORE_IDS:
            raise UserError(f"score_ids may hold {MAX_SCORE_IDS} ids, not {len(self.score_ids)}")

    @property
    def sequence(self) -> tuple[int, ...]:
        """Token ids of the parent and the request together."""
        return (self.parent.tokens if self.parent else ()) + tuple(self.tokens)

    @property
    def last_token(self) -> int:
        """The last token id of the sequence, without building all of it."""
        return self.tokens[-1] if self.tokens or self.parent is None else self.parent.tokens[-1]


@dataclass(frozen=True)
class Completion:
    """The result of one request.

    Attributes:
        id: the id of the request.
        tokens: sampled token ids, including the stop token.
        logps: their log-probabilities under the model before temperature and filters.
        finish: "stop", "length" (max_tokens or the maximum length was reached), "scored", or
            "too_long" (the prompt leaves no room in the context; nothing was computed).
        scores: log-probabilities of `Request.score_ids`.
        handle: handle of the whole sequence, if the request asked to keep it.
    """

    id: Hashable
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()
    finish: Finish = "length"
    scores: tuple[float, ...] = ()
    handle: Handle | None = None


class Piece(NamedTuple):
    """What a request with `Request.stream` has sampled.

    Attributes:
        id: of the request.
        tokens: ids, in order.
        logps: of the same, as in `Completion`.
    """

    id: Hashable
    tokens: tuple[int, ...]
    logps: tuple[float, ...]


def adapter_of(own: int, count: int, parent: Handle | None, adapter: int | None) -> int:
    """The adapter of what continues a handle, or of a root.

    Args:
        own: that of roots which name none.
        count: of adapters in the engine, without the base.
        parent: the handle; None: it is a root.
        adapter: the one that is asked for; None: none.

    Raises:
        ValueError: there is no such adapter, or it is not that of the parent.
    """
    inherited = own if parent is None else parent.adapter
    chosen = inherited if adapter is None else adapter
    if parent is not None and chosen != inherited:
        raise ValueError(f"adapter {adapter} cannot continue a sequence of adapter {inherited}")
    if not 0 <= chosen <= count:
        raise ValueError(f"the engine has no adapter {adapter}: it has {count} beside the base")
    return chosen


_Copied = TypeVar("_Copied", Request, Completion)


def copied(original: _Copied, **changes: Any) -> _Copied:
    """A copy with other values in some fields, as `dataclasses.replace`, but without checks.

    It takes a fifth of the time, and each request and completion is copied a few times on its way.
    """
    copy = object.__new__(type(original))
    copy.__dict__.update(original.__dict__)
    copy.__dict__.update(changes)
    return copy


@dataclass
class EngineStats:
    """Counters since the engine was created.

    Attributes:
        generated: sampled tokens of completed requests, so without those lost to preemption.
        prefilled: prompt tokens that went through the model, without padding.
        reused: prompt tokens whose keys and values were in the cache.
        calls: device programs dispatched.
        slot_steps: slots times decode steps.
        busy_steps: those of `slot_steps` that sampled a token.
        evicted: handles whose keys and values were evicted.
        preempted: requests that were preempted because the cache was full.
        wait_seconds: time that the host waited for the devices.
        starved_seconds: upper bound of the time that the devices waited for the host.
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
        """Fraction of the slots' decode steps that sampled a token."""
        return self.busy_steps / max(self.slot_steps, 1)

    @property
    def hit_rate(self) -> float:
        """Fraction of the prompt tokens that were in the prefix cache."""
        return self.reused / max(self.reused + self.prefilled, 1)


def total(stats: Iterable[EngineStats]) -> EngineStats:
    """Counters of several engines as one."""
    each = list(stats)
    names = [counted.name for counted in fields(EngineStats)]
    return EngineStats(**{name: sum(getattr(one, name) for one in each) for name in names})


def num_tokens(message: Any) -> int:
    """Tokens of a request, or of what a completion brought; 0 for those of services without any."""
    return len(getattr(message, "tokens", ()))


def request_key(seed: int, *path: Any) -> tuple[int, int]:
    """Derives a random key from a run's seed and a path of ints and strings.

    A hash on the host, so that the key is the same on every machine and backend.

    Returns:
        Two uint32 words.

    Raises:
        TypeError: an element is neither an int nor a string.
    """
    parts = (seed, *path)
    for part in parts:
        if not isinstance(part, (int, str)):
            raise TypeError(f"a key is made of ints and strings, not of {part!r}")
    # repr tells 1 from "1", and its quoting keeps ("ab", "c") apart from ("a", "bc").
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
