"""How large the prefills of a round are: on a mesh, each shard pays for the rows of the others.

A prefill has the same number of rows in all shards. A row that a shard has no use for costs as much
as any other, and a row that waits for the next round costs little: its sequence alone stands still.
So rows wait for company, but not for long.
"""

from collections.abc import Sequence

# Prefills of the largest size that a round may have. One is enough in the mean; where many prompts
# come at once, slots would wait for them.
_LARGEST = 2
# Rounds that rows wait at most.
_PATIENCE = 3


class PrefillSizes:
    """Chooses the prefills of each round."""

    def __init__(self, sizes: Sequence[int]):
        """`sizes`: rows in each shard that a prefill may have, from many to few."""
        self._sizes = sizes
        self._waited = 0

    def choose(self, wanted: Sequence[int]) -> list[int]:
        """Rows in each shard of the prefills of the next round, from many to few.

        As many as all shards fill; once rows have waited long enough, as many as the shards want in
        the mean, and at least the fewest that a prefill may have.

        Args:
            wanted: rows that each shard would take.
        """
        is_late = self._waited == _PATIENCE
        rows = -(-sum(wanted) // len(wanted)) if is_late else min(wanted)
        calls = full_calls(rows, self._sizes, most=_LARGEST * self._sizes[0])
        if is_late and rows and not calls:
            calls = [self._sizes[-1]]
        is_waiting = max(wanted) > sum(calls) and not is_late
        self._waited = self._waited + 1 if is_waiting else 0
        return calls


def full_calls(wanted: int, sizes: Sequence[int], most: int) -> list[int]:
    """Sizes of the calls that so many rows fill, from large to small; the rest fills none.

    Args:
        wanted: rows.
        sizes: that a call may have, from large to small.
        most: rows of all calls together.
    """
    calls: list[int] = []
    for size in sizes:
        count = (min(wanted, most) - sum(calls)) // size
        calls += [size] * count
    return calls
