"""One sequence on its way through a shard: waiting, prefilling, ready, in a slot, done."""

from dataclasses import dataclass, field

import numpy as np

from stair_jax.decoding.cache.page_pool import PageIds
from stair_jax.decoding.requests import Finish, Handle, Piece, Request
from stair_jax.decoding.sampling.sample import NUM_CANDIDATES

_NO_PAGES: PageIds = np.zeros(0, np.int32)


# Compared and hashed by identity: sequences are keys of dicts, and their fields change.
@dataclass(eq=False, slots=True)
class SequenceState:
    """What the host knows about one sequence.

    A sequence belongs to a request, or (`request` is None) it computes the keys and values of a
    kept handle that are not in the cache: they were evicted, or never computed. The latter is a
    maker (`decoding/prefix_makers.py`).

    Attributes:
        tokens: token ids of the prompt, i.e. of the sequence without sampled tokens.
        order: (priority, submission number); the lowest goes first.
        parent: the handle that the sequence continues.
        adapter: of the engine, by which the sequence is computed.
        request: the request.
        handle: the handle that is computed, if there is no request.
        limit: maximum number of sampled tokens; 1 for a scoring request.
        pages: [N] int32, page ids in sequence order; the sequence holds one reference to each.
        cached: number of tokens whose keys and values are in the pages once all programs dispatched
            so far have run.
        num_calls: decode calls in flight, i.e. dispatched with this sequence but not read yet.
        slot: index of the slot, or None.
        sampled: sampled token ids that the host has read.
        logps: their log-probabilities.
        num_streamed: sampled tokens that `Engine.take_tokens` knows of; kept when the sequence is
            preempted.
        waiters: sequences that wait until `handle` is computed.
        run: incremented by each preemption, so that results of an earlier run can be told apart.
        done: whether it has finished and left its slot.
    """

    tokens: tuple[int, ...]
    order: tuple[int, int]
    parent: Handle | None
    adapter: int = 0
    request: Request | None = None
    handle: Handle | None = None
    limit: int = 0
    pages: PageIds = field(default_factory=lambda: _NO_PAGES)
    cached: int = 0
    num_calls: int = 0
    slot: int | None = None
    sampled: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    num_streamed: int = 0
    waiters: list["SequenceState"] = field(default_factory=list)
    run: int = 0
    done: bool = False

    def __lt__(self, other: "SequenceState") -> bool:
        """Whether this sequence goes first."""
        return self.order < other.order

    def take_piece(self) -> Piece:
        """What was sampled since the last call; for a sequence of a request."""
        assert self.request is not None
        new = slice(self.num_streamed, None)
        self.num_streamed = len(self.sampled)
        return Piece(self.request.id, tuple(self.sampled[new]), tuple(self.logps[new]))

    @property
    def to_prefill(self) -> int:
        """Number of prompt tokens still to be prefilled, without the last one.

        The last token goes through the decode program, which samples its successor.
        """
        return len(self.tokens) - 1 - self.cached

    def missing_pages(self, num_steps: int, page_size: int) -> int:
        """Pages that it lacks for one more decode call of `num_steps` steps, at most.

        Negative if some are to spare. The token that was sampled last is not in the cache, hence
        `len(tokens) - 1`.
        """
        steps = len(self.sampled) + (self.num_calls + 1) * num_steps
        tokens = len(self.tokens) - 1 + (steps if steps < self.limit else self.limit)
        return -(-tokens // page_size) - len(self.pages)

    def may_go_on(self, num_steps: int) -> bool:
        """Whether the sequence may be unfinished after the calls in flight, of `num_steps` each."""
        return len(self.sampled) + self.num_calls * num_steps < self.limit

    @property
    def may_stall(self) -> bool:
        """Whether its sampling may need more than the largest logits, see `sample_quickly`."""
        sampling = self.request.sampling if self.request else None
        if sampling is None or not sampling.temperature:
            return False
        return not 0 < sampling.top_k <= NUM_CANDIDATES

    @property
    def finish(self) -> Finish | None:
        """How the sequence ended, or None while it goes on."""
        assert self.request is not None
        sampling, sampled = self.request.sampling, self.sampled
        if sampling is None:
            return "scored"
        # Checked before the limit: a stop token at the limit counts as "stop".
        if sampled and sampled[-1] in sampling.stop_ids:
            return "stop"
        return "length" if len(sampled) == self.limit else None

    def reset(self) -> None:
        """Resets the sequence to its state before it was started.

        The caller releases the pages: the sequence does not know the pool.
        """
        self.pages, self.cached, self.num_calls, self.slot = _NO_PAGES, 0, 0, None
        self.sampled, self.logps = [], []
        self.run += 1
