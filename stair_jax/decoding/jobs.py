"""A sequence on its way through a shard: waiting, being prefilled, ready, in a slot, done."""

from dataclasses import dataclass, field

import numpy as np

from stair_jax.decoding.pages import PageIds
from stair_jax.decoding.requests import Finish, Handle, Request

_NO_PAGES: PageIds = np.zeros(0, np.int32)


@dataclass(eq=False)
class Job:
    """What the host knows of one sequence.

    Either a request's, or (`request` None) that of a kept handle whose keys and values are needed
    and are not there.

    Attributes:
        tokens: of the sequence, without what is sampled.
        order: priority, and the number of the submission: the lowest goes first.
        parent: the handle that the sequence goes on from.
        request: what was asked.
        handle: what is made, if there is no request.
        limit: tokens that may be sampled, or 1 that is scored.
        pages: of the sequence; each with a reference of this job's.
        cached: tokens whose keys and values are in the pages, once all calls so far have run.
        num_calls: decode calls with it whose results have not been read.
        slot: None while it is in none.
        sampled: tokens that the host has read.
        logps: their log-probabilities.
        waiters: jobs that go on from `handle`.
        run: rises when the job is put back, so that results of an earlier run are told apart.
        done: its completion has been made.
    """

    tokens: tuple[int, ...]
    order: tuple[int, int]
    parent: Handle | None
    request: Request | None = None
    handle: Handle | None = None
    limit: int = 0
    pages: PageIds = field(default_factory=lambda: _NO_PAGES)
    cached: int = 0
    num_calls: int = 0
    slot: int | None = None
    sampled: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    waiters: list["Job"] = field(default_factory=list)
    run: int = 0
    done: bool = False

    def __lt__(self, other: "Job") -> bool:
        """Whether it goes first."""
        return self.order < other.order

    @property
    def to_prefill(self) -> int:
        """Tokens that have still to be put through the model before the last one."""
        return len(self.tokens) - 1 - self.cached

    def tokens_after_call(self, num_steps: int) -> int:
        """Tokens that the pages must have room for when one more call of so many steps has run."""
        steps = len(self.sampled) + (self.num_calls + 1) * num_steps
        return len(self.tokens) - 1 + min(steps, self.limit)

    def may_go_on(self, num_steps: int) -> bool:
        """Whether calls of so many steps may have left something to decode."""
        return len(self.sampled) + self.num_calls * num_steps < self.limit

    @property
    def finish(self) -> Finish | None:
        """How it ended, None if it has not."""
        assert self.request is not None
        if self.request.sampling is None:
            return "scored"
        if self.sampled and self.sampled[-1] in self.request.sampling.stop_ids:
            return "stop"
        return "length" if len(self.sampled) == self.limit else None

    def reset(self) -> None:
        """As it was before it was started; its pages are no affair of this."""
        self.pages, self.cached, self.num_calls, self.slot = _NO_PAGES, 0, 0, None
        self.sampled, self.logps = [], []
        self.run += 1
