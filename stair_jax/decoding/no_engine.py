"""In the place of an engine where nothing runs here: all requests go to other services."""

from collections.abc import Hashable, Iterable
from typing import Any, NoReturn

from stair_jax.decoding.requests import EngineStats


class NoEngine:
    """A service that is never asked; see `decoding.task.Service`.

    Attributes:
        stats: counters that stay at 0.
    """

    pending = 0

    def __init__(self) -> None:
        """Nothing is loaded."""
        self.stats = EngineStats()

    def submit(self, requests: Iterable[Any]) -> None:
        """Refuses requests: there should be none."""
        self._refuse()

    def step(self) -> list[Any]:
        """Nothing is under way."""
        return []

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Nothing is under way."""

    def keep(self, tokens: Iterable[int], parent: Any = None, adapter: int | None = None) -> Any:
        """Refuses to keep a sequence: there is no cache."""
        self._refuse()

    def shorten(self, handle: Any, num_tokens: int) -> Any:
        """As `keep`."""
        self._refuse()

    def release(self, handle: Any) -> None:
        """As `keep`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AssertionError("no model was loaded, and one is asked")
