"""What a driver and its workers say to each other."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Order:
    """What the driver sends to a worker.

    Attributes:
      items: to be worked on, beside those that the worker has.
      is_last: nothing will follow, unless another worker is lost.
      shared: what all items need; the same in each order of a queue.
    """

    items: Sequence[Any] = ()
    is_last: bool = False
    shared: Any = None


@dataclass(frozen=True)
class Report:
    """What a worker answers.

    Attributes:
      finished: (id of an item, result).
      wants: how many more items it has room for.
      totals: of the worker since its start; what they are is up to the stage.
    """

    finished: Sequence[tuple[Hashable, Any]] = ()
    wants: int = 0
    totals: Any = None


class Worker(Protocol):
    """Works on items; made once in each worker process, where its weights are loaded."""

    def exchange(self, order: Order, seconds: float) -> Report:
        """Takes new items, and works until one is done, there is room for more, or time is up.

        Args:
          order: of the driver.
          seconds: after which it answers in any case.
        """
