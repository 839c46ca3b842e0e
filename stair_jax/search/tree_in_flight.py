"""A tree that is being searched: its host side, and the results that wait for a round."""

from collections import deque
from dataclasses import dataclass, field

from stair_jax.search.actor import Actor, Children, Evaluated
from stair_jax.search.admission import Load
from stair_jax.search.prompt_queue import QueuedPrompt


@dataclass
class TreeInFlight:
    """A tree in flight.

    Attributes:
      queued: its prompt.
      actor: its host side.
      load: what its requests pin in the cache.
      order: lanes with a request in flight, in the order in which they asked.
      ready: by lane, results that wait to be delivered.
      rewards: that were delivered, in this order.
      stops: it ends before its budget is used up, once no lane has a request in flight.
      visits: of each node in the jitted search; set once the budget is used up.
      visits_left: evaluations after the budget that are not complete.
      unrewarded: evaluations that were delivered before one that had a reward.
      skipped: why no tree will come of it, once its last request is completed; empty: one will.
    """

    queued: QueuedPrompt
    actor: Actor
    load: Load
    order: deque[int] = field(default_factory=deque)
    ready: dict[int, Children | Evaluated] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    stops: bool = False
    visits: list[int] | None = None
    visits_left: int = 0
    unrewarded: int = 0
    skipped: str = ""

    @property
    def has_stopped(self) -> bool:
        """Whether it ends early, and waits for nothing any more."""
        return self.stops and not self.order

    @property
    def has_news(self) -> bool:
        """Whether the result that has to be delivered next is ready."""
        return not self.skipped and bool(self.order) and self.order[0] in self.ready
