"""Prompts of a search: rendered, filtered, and the reasons why some are skipped."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from stair_jax.data.examples import encode_row, start_ids
from stair_jax.data.records import Prompt
from stair_jax.errors import UserError
from stair_jax.search.tree_records import TreeRecord
from stair_jax.text import starts
from stair_jax.text.tokenizer import Tokenizer

DUPLICATE = "duplicate id"


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt to search."""

    place: int  # index among all prompts of the search
    prompt: Prompt
    tokens: list[int]  # rendered by the chat template
    start: list[int]  # token ids of what its answer begins with


class TreeQueue(Protocol):
    """Where a search takes its prompts from, and where its trees go."""

    @property
    def next(self) -> QueuedPrompt | None:
        """What `take` returns next; None: nothing now."""

    @property
    def is_dealt(self) -> bool:
        """Whether nothing waits, here or where the prompts come from."""

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing to take, and nothing will come: the search then ends."""

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(prompt id, reason), in the order of the prompts."""

    def take(self) -> QueuedPrompt | None:
        """Returns `next` and advances."""

    def finish(self, id: str, record: TreeRecord) -> None:
        """Hands in the tree of a prompt that was taken."""

    def skip(self, place: int, prompt: Prompt, reason: str) -> None:
        """Records that a prompt gets no tree anywhere."""


class PromptQueue:
    """The prompts that remain to be searched, with a look-ahead of one: a `TreeQueue`.

    Prompts are rendered lazily, so that a search of many prompts starts at once.

    Attributes:
      next: what `take` returns next; None when no prompt is left.
    """

    def __init__(
        self,
        prompts: Iterable[Prompt],
        tokenizer: Tokenizer,
        max_tokens: int,
        done: Collection[str],
        start_limits: tuple[float, float] = (math.inf, math.inf),
        on_tree: Callable[[TreeRecord], None] = lambda record: None,
    ):
        """Reads no prompt but the first.

        Args:
          prompts: in the order of their trees.
          tokenizer: of the model.
          max_tokens: of a rendered prompt.
          done: ids of prompts that are passed over.
          start_limits: (tokens, steps) that a start has to be below, so that there is something
            left to search.
          on_tree: called with each tree that is finished.
        """
        self._tokenizer, self._max_tokens, self._done = tokenizer, max_tokens, frozenset(done)
        self._start_limits, self._on_tree = start_limits, on_tree
        self._skipped: dict[int, tuple[str, str]] = {}
        self._usable = self._read(prompts)
        self.next = next(self._usable, None)

    @property
    def is_dealt(self) -> bool:
        """Whether no prompt is left."""
        return self.next is None

    @property
    def is_exhausted(self) -> bool:
        """Whether no prompt is left."""
        return self.next is None

    def take(self) -> QueuedPrompt | None:
        """Returns `next` and advances."""
        queued, self.next = self.next, next(self._usable, None)
        return queued

    def finish(self, id: str, record: TreeRecord) -> None:
        """Passes a tree on."""
        self._on_tree(record)

    def skip(self, place: int, prompt: Prompt, reason: str) -> None:
        """Records that a prompt gets no tree."""
        self.skip_id(place, prompt.id, reason)

    def skip_id(self, place: int, id: str, reason: str) -> None:
        """As `skip`, of a prompt by its id."""
        self._skipped[place] = id, reason

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(prompt id, reason), in the order of the prompts."""
        return [self._skipped[place] for place in sorted(self._skipped)]

    def _read(self, prompts: Iterable[Prompt]) -> Iterator[QueuedPrompt]:
        seen: set[str] = set()
        for place, prompt in enumerate(prompts):
            is_new = prompt.id not in seen
            seen.add(prompt.id)
            if not is_new:
                self.skip(place, prompt, DUPLICATE)
            elif prompt.id in self._done:
                continue
            elif not prompt.prompt.strip():
                self.skip(place, prompt, "empty prompt")
            else:
                yield from self._encoded(place, prompt)

    def _encoded(self, place: int, prompt: Prompt) -> Iterator[QueuedPrompt]:
        """The prompt, unless it is skipped."""
        try:
            tokens = encode_row(self._tokenizer, prompt)
        except UserError as error:
            if not prompt.is_chat:  # no prompt could be rendered
                raise
            self.skip(place, prompt, str(error))
            return
        start = start_ids(self._tokenizer, prompt)
        most_tokens, most_steps = self._start_limits
        if len(tokens) > self._max_tokens:
            self.skip(place, prompt, "prompt too long")
        elif start and len(start) >= most_tokens:
            self.skip(place, prompt, "its start leaves no room in max_answer_tokens")
        elif start and starts.num_steps(prompt.start or ()) >= most_steps:
            self.skip(place, prompt, "its start has max_depth steps")
        else:
            yield QueuedPrompt(place, prompt, tokens, start)
