"""An engine without a model: what it answers is a function of the request.

It has what `run_search`, `best_of_n` and `beam_search` need of `stair_jax.decoding.engine.Engine`,
and refuses what that refuses. Handles are counted, so that a test can ask whether all were given
back.
"""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol

from stair_jax.decoding.requests import Completion, EngineStats, Finish, Handle, Piece, Request
from stair_jax.errors import UserError
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer


class Replies(Protocol):
    """What a scripted engine says."""

    def write(self, request: Request) -> tuple[Sequence[int], Sequence[float]]:
        """Token ids to sample for a request, and the log-probability of each.

        The engine cuts them at the request's limit.
        """

    def score(self, request: Request) -> Sequence[float]:
        """The log-probability of each of the request's `score_ids`."""


class ScriptedEngine:
    """Completes requests by a script, all at once or some at a time and in mixed order.

    Attributes:
      replies: what it says.
      stats: tokens sampled, prefilled and reused, and slot steps, as if each sampled token was
        one; nothing is ever evicted.
      capacity: tokens of the cache.
      max_length: tokens of a sequence.
      handles: those that are kept.
      seen: all requests that were submitted, in order.
      waiting: those of them that are not completed yet.
    """

    def __init__(
        self,
        replies: Replies,
        *,
        disorder: int | None = None,
        capacity: int = 2**40,
        max_length: int = 2**40,
    ):
        """An idle engine.

        Args:
          replies: what it says.
          disorder: seeds the order of completions: a step brings some of what is pending, in
            mixed order, and now and then nothing, as that of an engine that is a round ahead.
            None: a step brings all of it, in order.
          capacity: tokens of the cache; more may be in use, as nothing is put back.
          max_length: tokens of a sequence, prompt and samples together.
        """
        self.replies = replies
        self.stats = EngineStats()
        self.capacity, self.max_length = capacity, max_length
        self.handles: set[Handle] = set()
        self.seen: list[Request] = []
        self.waiting: list[Request] = []
        self._streamed: list[Piece] = []
        self._order = None if disorder is None else random.Random(disorder)

    @property
    def pending(self) -> int:
        """Requests whose completions `step` has not returned yet."""
        return len(self.waiting)

    @property
    def free(self) -> int:
        """Tokens of the cache beside the sequences of pending requests."""
        return self.capacity - sum(map(_length, self.waiting))

    def submit(self, requests: Iterable[Request]) -> None:
        """Takes requests over.

        Raises:
          ValueError: a parent is not a handle of this engine.
        """
        for request in requests:
            self._check_kept(request.parent)
            self.waiting.append(request)
            self.seen.append(request)

    def step(self) -> list[Completion]:
        """Completes what is pending, or some of it, see `disorder`."""
        taken, self.waiting = self.waiting, []
        if self._order is not None and taken:
            if self._order.random() < 0.2:
                taken, self.waiting = [], taken
            else:
                self._order.shuffle(taken)
                count = self._order.randint(1, len(taken))
                taken, self.waiting = taken[:count], taken[count:]
        return [self.complete(request) for request in taken]

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops pending requests."""
        ids = set(ids)
        self.waiting = [request for request in self.waiting if request.id not in ids]

    def take_tokens(self) -> list[Piece]:
        """Returns what requests with `stream` sampled since the last call: all at once."""
        taken, self._streamed = self._streamed, []
        return taken

    def keep(
        self, tokens: Iterable[int], parent: Handle | None = None, adapter: int | None = None
    ) -> Handle:
        """A handle of the tokens after those of `parent`.

        Raises:
          UserError: there are no tokens.
          ValueError: the parent is not a handle of this engine.
        """
        self._check_kept(parent)
        own = tuple(tokens)
        if not own and parent is None:
            raise UserError("a handle needs at least one token")
        chosen = parent.adapter if parent else adapter or 0
        handle = Handle((parent.tokens if parent else ()) + own, parent, chosen)
        self.handles.add(handle)
        return handle

    def shorten(self, handle: Handle, num_tokens: int) -> Handle:
        """Exchanges a handle for one of its first tokens.

        Raises:
          ValueError: not a handle of this engine, or has no such beginning.
        """
        shortest = len(handle.parent.tokens) if handle.parent else 1
        if not shortest <= num_tokens <= len(handle.tokens):
            raise ValueError(f"no handle of {num_tokens} tokens can be made of this one")
        self.release(handle)
        shorter = Handle(handle.tokens[:num_tokens], handle.parent, handle.adapter)
        self.handles.add(shorter)
        return shorter

    def release(self, handle: Handle) -> None:
        """Gives a handle back.

        Raises:
          ValueError: not a handle of this engine.
        """
        self._check_kept(handle)
        self.handles.remove(handle)

    def complete(self, request: Request) -> Completion:
        """The completion of a request, which is counted."""
        length = _length(request)
        if length + (request.sampling is not None) > self.max_length:
            return Completion(request.id, finish="too_long")
        self.stats.prefilled += len(request.tokens)
        self.stats.reused += length - len(request.tokens)
        if request.sampling is None:
            return Completion(
                request.id, finish="scored", scores=tuple(self.replies.score(request))
            )
        written, logps = self.replies.write(request)
        limit = min(request.sampling.max_tokens, self.max_length - length)
        tokens = tuple(written[:limit])
        self.stats.generated += len(tokens)
        self.stats.busy_steps += len(tokens)
        self.stats.slot_steps += len(tokens)
        if request.stream:
            self._streamed.append(Piece(request.id, tokens, tuple(logps[:limit])))
        is_whole = len(tokens) == len(written) > 0
        stopped = is_whole and tokens[-1] in request.sampling.stop_ids
        handle = self.keep((*request.tokens, *tokens), request.parent) if request.keep else None
        finish: Finish = "stop" if stopped else "length"
        return Completion(request.id, tokens, tuple(logps[:limit]), finish, handle=handle)

    def _check_kept(self, handle: Handle | None) -> None:
        if handle is not None and handle not in self.handles:
            raise ValueError("not a handle of this engine, or released before")


class ZeroReplies:
    """Token 0 up to the limit of each request, and -1 for each log-probability: costs nothing."""

    def write(self, request: Request) -> tuple[Sequence[int], Sequence[float]]:
        """`max_tokens` zeros."""
        assert request.sampling is not None
        count = request.sampling.max_tokens
        return (0,) * count, (-1.0,) * count

    def score(self, request: Request) -> Sequence[float]:
        """-1 for each."""
        return (-1.0,) * len(request.score_ids)


class RandomReplies:
    """Answers in the format of STAIR, a few letters a step, by a hash of tokens and key.

    A request that stops where a reasoning step ends gets one step, any other the rest of an answer.

    Attributes:
      tokenizer: of the texts.
      p_end: chance that a step is the last one, the output block.
      reply: `(request, text so far) -> text`, or None for a random one; to put words into the
        mouth of a judge, say.
    """

    def __init__(self, tokenizer: Tokenizer, p_end: float = 0.35):
        """All replies are random."""
        self.tokenizer, self.p_end = tokenizer, p_end
        self.reply: Callable[[Request, str], str | None] = lambda request, text: None

    def write(self, request: Request) -> tuple[Sequence[int], Sequence[float]]:
        """Tokens of a text and, where none of the request's stop ids ends it, end of sequence."""
        assert request.sampling is not None
        rng = random.Random(_digest(request.sequence, request.key))
        text = self.reply(request, self.tokenizer.decode(request.sequence))
        stop_ids = request.sampling.stop_ids
        if text is None:
            text = self._write(rng, self.tokenizer.tags.reasoning_close in stop_ids)
        tokens = self.tokenizer.encode_answer(text)
        if not tokens or tokens[-1] not in stop_ids:
            tokens.append(self.tokenizer.eos_id)
        return tokens, [-rng.random() for _ in tokens]

    def score(self, request: Request) -> Sequence[float]:
        """Between -5 and 0; a function of the tokens alone, as that of a model is."""
        rng = random.Random(_digest(request.sequence))
        return [-5 * rng.random() for _ in request.score_ids]

    def _write(self, rng: random.Random, one_step: bool) -> str:
        text = ""
        while True:
            if rng.random() < self.p_end:
                return text + steps.format_output(rng.choice("abcdefgh"))
            text += steps.format_step(rng.choice("AB"), rng.choice("xyz"))
            if one_step:
                return text


def _length(request: Request) -> int:
    """Tokens of its sequence, which need not be put together for that."""
    return len(request.tokens) + (len(request.parent.tokens) if request.parent else 0)


def _digest(*values: Hashable) -> int:
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big")
