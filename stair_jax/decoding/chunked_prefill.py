"""Chunked prefill: one row of a prefill call, and how many rows the calls of a round have.

All shards of a mesh run one program, so a call has the same number of rows in each. An unused row
costs as much compute as a used one, and delays every slot of its shard; a row that is deferred to
the next round delays its own sequence only. Rows are therefore deferred until they fill a call, but
not for long. Measurements are in docs/benchmarks.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.decoding.sequence import SequenceState

# Most calls of the largest size per round. One is enough on average; but where many prompts arrive
# at once, slots would stay idle waiting for their prefills.
_LARGEST = 2
# Most consecutive rounds that a row may be deferred.
_PATIENCE = 3


@dataclass(frozen=True)
class PrefillChunk:
    """One row of a prefill call: consecutive tokens of a sequence.

    Attributes:
        sequence: the sequence.
        start: position of the first token in the sequence.
        tokens: at most `EngineConfig.prefill_width` token ids.
    """

    sequence: SequenceState
    start: int
    tokens: tuple[int, ...]


class PrefillSizes:
    """Chooses the prefill calls of each round."""

    def __init__(self, sizes: Sequence[int]):
        """Creates the chooser.

        Args:
            sizes: row counts per shard for which a prefill program exists, in descending order.
        """
        self._sizes = sizes
        self._waited = 0

    def choose(self, wanted: Sequence[int]) -> list[int]:
        """Chooses the prefill calls of the next round.

        As many rows as every shard can fill. Once rows have been deferred for long enough, as many
        as the shards want on average, and at least the smallest call.

        Args:
            wanted: number of rows that each shard could fill.

        Returns:
            Rows per shard of each call, in descending order.
        """
        is_late = self._waited == _PATIENCE
        rows = -(-sum(wanted) // len(wanted)) if is_late else min(wanted)
        calls = full_calls(rows, self._sizes, most=_LARGEST * self._sizes[0])
        if is_late and rows and not calls:
            calls = [self._sizes[-1]]
        # The counter covers all shards together: it says that some row has been deferred that many
        # rounds in succession, not which.
        is_waiting = max(wanted) > sum(calls) and not is_late
        self._waited = self._waited + 1 if is_waiting else 0
        return calls


def full_calls(wanted: int, sizes: Sequence[int], most: int) -> list[int]:
    """Splits rows greedily into calls that are completely filled; the remainder is left out.

    Args:
        wanted: number of rows.
        sizes: possible row counts of a call, in descending order.
        most: maximum number of rows of all calls together.

    Returns:
        Row counts of the calls, in descending order.
    """
    calls: list[int] = []
    for size in sizes:
        count = (min(wanted, most) - sum(calls)) // size
        calls += [size] * count
    return calls
