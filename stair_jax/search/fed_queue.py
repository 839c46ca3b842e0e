"""Prompts that come from elsewhere, and trees that are fetched: the queue of a worker."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.data.records import Prompt
from stair_jax.samples import Sample
from stair_jax.search.prompt_queue import QueuedPrompt
from stair_jax.search.tree_records import TreeRecord


@dataclass(frozen=True)
class Outcome:
    """What became of a prompt.

    Attributes:
      place: of the prompt among all of the search.
      tree: its tree; None: it gets none.
      skipped: why it gets none.
      samples: text samples of the tree.
    """

    place: int
    tree: TreeRecord | None = None
    skipped: str = ""
    samples: Sequence[Sample] = ()


class FedQueue:
    """A `TreeQueue` that never ends by itself.

    Attributes:
      is_dealt: nothing waits where the prompts come from.
      is_exhausted: never.
    """

    is_exhausted = False

    def __init__(self) -> None:
        """Nothing is there to take."""
        self.is_dealt = False
        self._waiting: deque[QueuedPrompt] = deque()
        self._places: dict[str, int] = {}
        self._outcomes: list[tuple[str, Outcome]] = []
        self._samples: Sequence[Sample] = ()

    @property
    def next(self) -> QueuedPrompt | None:
        """What `take` returns next."""
        return self._waiting[0] if self._waiting else None

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(prompt id, reason) of those that were not fetched."""
        return [(id, outcome.skipped) for id, outcome in self._outcomes if outcome.skipped]

    @property
    def has_outcomes(self) -> bool:
        """Whether there is something to fetch."""
        return bool(self._outcomes)

    def feed(self, prompts: Sequence[QueuedPrompt], is_dealt: bool) -> None:
        """Adds prompts behind those that are there."""
        self._waiting.extend(prompts)
        self._places |= {queued.prompt.id: queued.place for queued in prompts}
        self.is_dealt = is_dealt and not self._waiting

    def fetch(self) -> list[tuple[str, Outcome]]:
        """What became of prompts since the last call, by id."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def take(self) -> QueuedPrompt | None:
        """Returns `next` and advances."""
        return self._waiting.popleft() if self._waiting else None

    def add_samples(self, samples: Sequence[Sample]) -> None:
        """Text samples of the tree that is finished next."""
        self._samples = samples

    def finish(self, id: str, record: TreeRecord) -> None:
        """Keeps a tree until it is fetched."""
        outcome = Outcome(self._places.pop(id), record, samples=self._samples)
        self._outcomes.append((id, outcome))
        self._samples = ()

    def skip(self, place: int, prompt: Prompt, reason: str) -> None:
        """Keeps a reason until it is fetched."""
        self._places.pop(prompt.id, None)
        self._outcomes.append((prompt.id, Outcome(place, skipped=reason)))
