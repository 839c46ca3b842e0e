"""An engine whose completions have scripted lengths and texts: what a search of a model costs.

Random weights end no step and conclude no judgement. `OverlayEngine` has the real engine sample
as many tokens as the script says, and hands out the script's tokens in their place. Lengths and
texts depend on the key of a request and on its depth in the tree alone, so that a tree is the same
on any device, in any company, and without a model at all, over `instant_engine`.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.script import Script
from stair_jax.decoding.requests import Completion, EngineStats, Handle, Request
from stair_jax.search.judging.replies import QUESTIONS
from stair_jax.testing.scripted_engine import ScriptedEngine, ZeroReplies


class OutOfTime(Exception):
    """The time of a run is over; what was pending has been given up."""


@dataclass
class Work:
    """What the completions came to.

    Attributes:
        tokens: sampled.
        seen: the sum, over these, of the tokens that each sees.
        steps, rollouts, replies: completions of each kind.
    """

    tokens: int = 0
    seen: float = 0.0
    steps: int = 0
    rollouts: int = 0
    replies: int = 0


@dataclass
class _Asked:
    request: Request
    tokens: tuple[int, ...]
    prompt_tokens: int
    closings: tuple[int, ...]


@dataclass
class OverlayEngine:
    """An engine as the search knows it, around one that samples.

    The handles that it gives out are those of the real engine, whose tokens are not the script's:
    only their numbers are alike.

    Attributes:
        engine: samples and scores; with no request pending.
        script: says how much.
        is_over: asked before each step whether to give up.
        work: done since it was made.
        stats: of the engine.
    """

    engine: Any
    script: Script
    is_over: Callable[[], bool] = lambda: False
    work: Work = field(default_factory=Work)
    stats: EngineStats = field(init=False)
    _asked: dict[Hashable, _Asked] = field(default_factory=dict)
    # Where the steps of a kept sequence end: what depth is to the script.
    _closings: dict[Handle, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The counts are those of the engine itself."""
        self.stats = self.engine.stats

    @property
    def pending(self) -> int:
        """As of the engine."""
        return self.engine.pending

    def __getattr__(self, name: str) -> Any:
        """What else an engine has: `capacity`, `free`, `max_length`."""
        return getattr(self.engine, name)

    def submit(self, requests: Iterable[Request]) -> None:
        """Takes requests over, with the script's numbers of tokens."""
        self.engine.submit([self._limited(request) for request in requests])

    def step(self) -> list[Completion]:
        """As of the engine, with the script's tokens.

        Raises:
            OutOfTime: when it is over.
        """
        if self.is_over():
            raise OutOfTime
        return [self._scripted(completion) for completion in self.engine.step()]

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """As of the engine."""
        ids = list(ids)
        self.engine.cancel(ids)
        for id in ids:
            self._asked.pop(id, None)

    def keep(
        self, tokens: Iterable[int], parent: Handle | None = None, adapter: int | None = None
    ) -> Handle:
        """As of the engine."""
        own = tuple(tokens)
        handle = self.engine.keep(own, parent, adapter)
        self._closings[handle] = self._closed(own, parent)
        return handle

    def shorten(self, handle: Handle, num_tokens: int) -> Handle:
        """As of the engine."""
        closings = self._closings.pop(handle)
        shortened = self.engine.shorten(handle, num_tokens)
        self._closings[shortened] = tuple(end for end in closings if end <= num_tokens)
        return shortened

    def release(self, handle: Handle) -> None:
        """As of the engine."""
        del self._closings[handle]
        self.engine.release(handle)

    def _limited(self, request: Request) -> Request:
        if request.sampling is None:
            return request
        closings = self._closed(tuple(request.tokens), request.parent)
        tokens = self.script.write(request, len(closings))
        parent_tokens = len(request.parent.tokens) if request.parent else 0
        prompt_tokens = parent_tokens + len(request.tokens)
        limit = min(len(tokens), request.sampling.max_tokens)
        self._asked[request.id] = _Asked(request, tokens, prompt_tokens, closings)
        return replace(request, sampling=replace(request.sampling, max_tokens=limit, stop_ids=()))

    def _scripted(self, completion: Completion) -> Completion:
        asked = self._asked.pop(completion.id, None)
        if asked is None or completion.finish == "too_long":
            return completion
        count = len(completion.tokens)
        tokens = asked.tokens[:count]
        self._count(asked, count)
        if completion.handle is not None:
            ends = self._ends(tokens, asked.prompt_tokens)
            self._closings[completion.handle] = asked.closings + ends
        finish = "stop" if count == len(asked.tokens) else completion.finish
        return replace(completion, tokens=tokens, finish=finish)

    def _closed(self, tokens: tuple[int, ...], parent: Handle | None) -> tuple[int, ...]:
        """Where the steps of a sequence end."""
        if parent is None:
            return self._ends(tokens, 0)
        return self._closings[parent] + self._ends(tokens, len(parent.tokens))

    def _ends(self, tokens: tuple[int, ...], offset: int) -> tuple[int, ...]:
        close = self.script.tokenizer.tags.reasoning_close
        return tuple(offset + i + 1 for i, token in enumerate(tokens) if token == close)

    def _count(self, asked: _Asked, count: int) -> None:
        self.work.tokens += count
        self.work.seen += count * (asked.prompt_tokens + count / 2)
        sampling = asked.request.sampling
        assert sampling is not None
        if isinstance(asked.request.id, tuple) and asked.request.id[-1] in QUESTIONS:
            self.work.replies += 1
        elif self.script.tokenizer.tags.reasoning_close in sampling.stop_ids:
            self.work.steps += 1
        else:
            self.work.rollouts += 1


def instant_engine() -> ScriptedEngine:
    """Completes each request at once, with zeros: for a script without a model."""
    return ScriptedEngine(ZeroReplies())
