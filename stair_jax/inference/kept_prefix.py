"""The beginning of a chat, kept in the engine's cache from one turn to the next."""

from collections.abc import Sequence

from stair_jax.decoding.requests import Handle
from stair_jax.search.judging.prefixes import Keeper


class KeptPrefix:
    """At most one handle: of the last prompt with its answer, or of their first tokens."""

    def __init__(self, engine: Keeper):
        """Nothing is kept yet."""
        self._engine = engine
        self._handle: Handle | None = None

    def take(self, tokens: Sequence[int]) -> Handle | None:
        """A handle of as many of the first `tokens` as are kept; None: of none of them.

        What else was kept is given back. The handle stays kept, for the next turn.
        """
        handle = self._handle
        if handle is None:
            return None
        shared = _shared(handle.tokens, tokens)
        if shared < max(1, len(handle.parent.tokens) if handle.parent else 1):
            self.drop()
            return None
        self._handle = self._engine.shorten(handle, shared)
        return self._handle

    def put(self, handle: Handle | None) -> None:
        """Keeps a handle in place of the one before, which may be its parent."""
        self.drop()
        self._handle = handle

    def drop(self) -> None:
        """Gives back what is kept."""
        if self._handle is not None:
            self._engine.release(self._handle)
            self._handle = None


def _shared(some: Sequence[int], others: Sequence[int]) -> int:
    """Number of tokens at the beginning that are equal."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(some), len(others)))
