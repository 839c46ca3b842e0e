"""The slots of one shard as the host sees them, and the arrays that tell the device about them.

The scheduler decides which sequence runs; this table keeps which sequence occupies which slot, and
packs what the next decode call is sent: slot updates, the page table, and the line of sequences
that the device itself assigns to slots that have become idle.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stair_jax.decoding.cache.page_pool import PageIds
from stair_jax.decoding.sequence import SequenceState
from stair_jax.decoding.slots import WIDTH, put_at_rest, put_request


class DecodingSlot(NamedTuple):
    """A sequence that occupies a slot during one decode call.

    Attributes:
        slot: index of the slot within the shard.
        sequence: the sequence.
        run: `SequenceState.run` when the call was dispatched. If the sequence has been preempted
            since then, the numbers differ and the results of the call are discarded.
    """

    slot: int
    sequence: SequenceState
    run: int


class SlotTable:
    """Which sequence occupies which slot, and the updates that the device has not received yet.

    Attributes:
        occupants: the sequence in each slot, or None.
        pages: [num_slots, table_width] int32, page ids of the sequence in each slot; zeros where
            there is none.
    """

    def __init__(self, num_slots: int, table_width: int):
        """Creates a table of idle slots.

        Args:
            num_slots: number of slots.
            table_width: maximum number of pages per sequence.
        """
        self.occupants: list[SequenceState | None] = [None] * num_slots
        self.pages = np.zeros((num_slots, table_width), np.int32)
        self._changes = np.zeros((num_slots, WIDTH), np.int32)
        self._free = list(range(num_slots - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Number of slots that no sequence occupies."""
        return len(self._free)

    @property
    def is_idle(self) -> bool:
        """Whether no slot is in use."""
        return len(self._free) == len(self.occupants)

    def running(self) -> Iterator[SequenceState]:
        """The sequences in slots, in slot order."""
        return (sequence for sequence in self.occupants if sequence is not None)

    def start(self, sequence: SequenceState) -> None:
        """Puts a sequence into a free slot, and tells the device so with the next decode call."""
        slot = self._free[-1]
        _pack(self._changes, slot, sequence)
        self._occupy(slot, sequence)

    def take_over(self, line: list[SequenceState]) -> list[DecodingSlot]:
        """Assigns the sequences of a line to the free slots as the device did.

        Args:
            line: the sequences of a decode call's line, in order.

        Returns:
            The sequences that have a slot now. The line may be longer than the number of idle
            slots: the rest has none.
        """
        taken = []
        # The device numbers idle slots in ascending order (`programs._taken_over`).
        for slot, sequence in zip(sorted(self._free), line, strict=False):
            self._occupy(slot, sequence)
            taken.append(DecodingSlot(slot, sequence, sequence.run))
        return taken

    def leave(self, sequence: SequenceState) -> None:
        """Frees the slot of a sequence that the device has finished, and so set idle itself."""
        slot = sequence.slot
        assert slot is not None
        self.occupants[slot] = None
        self._free.append(slot)
        self.pages[slot] = 0
        sequence.slot = None

    def stop(self, sequence: SequenceState) -> None:
        """Frees the slot of an unfinished sequence."""
        assert sequence.slot is not None
        # The device goes on with the sequence until it is told otherwise, in the next decode call.
        put_at_rest(self._changes, sequence.slot)
        self.leave(sequence)

    def write_pages(self, sequence: SequenceState) -> None:
        """Writes the page ids of a sequence in a slot into the page table."""
        assert sequence.slot is not None
        self.pages[sequence.slot, : len(sequence.pages)] = sequence.pages

    def append_pages(self, sequence: SequenceState, pages: PageIds) -> None:
        """Writes page ids into the page table behind those that a sequence in a slot has."""
        assert sequence.slot is not None
        count = len(sequence.pages)
        self.pages[sequence.slot, count : count + len(pages)] = pages

    def take_changes(self) -> np.ndarray:
        """Returns and clears the slot updates that the device has not received yet.

        Returns:
            [num_slots, WIDTH] int32 (`decoding/slots.py`).
        """
        changes, self._changes = self._changes, np.zeros_like(self._changes)
        return changes

    def pack_line(self, line: list[SequenceState], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Packs a line of sequences as the decode program takes it.

        Args:
            line: at most `length` sequences.
            length: number of rows of the program.

        Returns:
            [length, WIDTH] int32 rows (`decoding/slots.py`), and [length, table_width] int32 page
            ids. Unused rows are zero.
        """
        rows = np.zeros((length, WIDTH), np.int32)
        pages = np.zeros((length, self.pages.shape[1]), np.int32)
        for place, sequence in enumerate(line):
            _pack(rows, place, sequence)
            pages[place, : len(sequence.pages)] = sequence.pages
        return rows, pages

    def _occupy(self, slot: int, sequence: SequenceState) -> None:
        self._free.remove(slot)
        self.occupants[slot] = sequence
        sequence.slot = slot
        self.write_pages(sequence)


def _pack(rows: np.ndarray, row: int, sequence: SequenceState) -> None:
    """Writes the request of a sequence into one of the packed rows."""
    assert sequence.request is not None
    put_request(rows, row, sequence.request, len(sequence.tokens), sequence.limit, sequence.adapter)
