"""Several sequences in one row: explicit lengths, first fit, static shapes.

Best fit fills rows no better than first fit once the longest come first (batches.py sees to it).

No mask is ever derived from a token id: padding is where `segment_ids` is 0, and the loss is
where `weights` is not 0.
"""

from collections.abc import Hashable, Sequence, Sized
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Example:
    """One sequence: its token ids, and for each token whether the loss counts it."""

    tokens: Sequence[int]
    loss_mask: Sequence[int]
    id: Hashable = ""

    def __post_init__(self) -> None:
        """Raises a ValueError for an empty sequence or a mask of another length."""
        if len(self.tokens) == 0 or len(self.tokens) != len(self.loss_mask):
            raise ValueError(
                f"example {self.id!r}: {len(self.tokens)} tokens, mask of {len(self.loss_mask)}"
            )

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Packed:
    """Sequences packed into B rows of T tokens, or a part of these rows; N sequences in all.

    The weight of a position is the loss mask of its target, the next token of the same sequence;
    the last position of a sequence has no target (0) and weight 0.
    """

    tokens: np.ndarray  # [B, T] int32
    targets: np.ndarray  # [B, T] int32
    positions: np.ndarray  # [B, T] int32, from 0 in each sequence
    segment_ids: np.ndarray  # [B, T] int32, 1, 2, ... along a row; 0 is padding
    weights: np.ndarray  # [B, T] float32
    sequence_ids: np.ndarray  # [B, T] int32, index of the example; N is padding
    last: np.ndarray  # [N] int32, place of each example's last token in all B rows, flat [B * T]


def most_sequences(length: int) -> int:
    """Sequences in a row of that many tokens: as many as all attention kernels take."""
    return max(15, length // 64 - 1)


def pack(
    examples: Sequence[Example],
    length: int,
    num_rows: int | None = None,
    part: slice | None = None,
) -> Packed:
    """Packs examples in order, each into the first row with room for it.

    Args:
      examples: each at most `length` tokens long.
      length: T.
      num_rows: B; as many rows as it takes when None.
      part: the rows to make, one after another; None: all. No token outside of them is read.

    Raises:
      ValueError: an example is longer than a row, or the rows do not suffice.
    """
    rows = Rows(len(examples) if num_rows is None else num_rows, length)
    places = rows.place([len(example) for example in examples])
    if places is None:
        raise ValueError(f"{len(examples)} examples do not fit into {rows.count} rows of {length}")
    count = rows.used if num_rows is None else num_rows
    own = range(count)[part or slice(None)]
    shape = (len(own), length)
    packed = Packed(
        tokens=np.zeros(shape, np.int32),
        targets=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segment_ids=np.zeros(shape, np.int32),
        weights=np.zeros(shape, np.float32),
        sequence_ids=np.full(shape, len(examples), np.int32),
        last=np.zeros(len(examples), np.int32),
    )
    for index, (example, (row, start)) in enumerate(zip(examples, places, strict=True)):
        end = start + len(example)
        packed.last[index] = row * length + end - 1
        if row not in own:
            continue
        place, tokens = own.index(row), np.asarray(example.tokens)
        packed.tokens[place, start:end] = tokens
        packed.targets[place, start : end - 1] = tokens[1:]
        packed.positions[place, start:end] = np.arange(len(example))
        packed.segment_ids[place, start:end] = packed.segment_ids[place].max() + 1
        packed.weights[place, start : end - 1] = np.asarray(example.loss_mask)[1:]
        packed.sequence_ids[place, start:end] = index
    return packed


def split(groups: Sequence[Sequence[Sized]], length: int, num_rows: int) -> list[list[int]]:
    """Divides groups of examples among blocks of `num_rows` rows, first fit; no group is cut.

    Returns the indices of the groups in each block; `pack` puts a block's examples, in this
    order, into `num_rows` rows. With at most g examples a group, there are at most
    ceil(len(groups) / floor(num_rows / g)) blocks, and as many only if the examples are long.

    Raises:
      ValueError: a group does not fit into an empty block.
    """
    blocks: list[tuple[Rows, list[int]]] = []
    for index, group in enumerate(groups):
        lengths = [len(example) for example in group]
        members = next((m for rows, m in blocks if rows.place(lengths) is not None), None)
        if members is None:
            blocks.append((Rows(num_rows, length), members := []))
            if blocks[-1][0].place(lengths) is None:
                raise ValueError(f"{lengths} tokens do not fit into {num_rows} rows of {length}")
        members.append(index)
    return [members for _, members in blocks]


class Rows:
    """Rows that are being filled, each from its start."""

    def __init__(self, count: int, length: int):
        self.count, self.length = count, length
        self._free = [length] * count
        self._left = [most_sequences(length)] * count

    @property
    def used(self) -> int:
        return sum(free < self.length for free in self._free)

    def place(self, lengths: Sequence[int]) -> list[tuple[int, int]] | None:
        """(row, start) of sequences of these lengths; None, and no change, if one has no room."""
        free, left = list(self._free), list(self._left)
        places = []
        for length in lengths:
            rows = range(self.count)
            row = next((row for row in rows if free[row] >= length and left[row]), None)
            if row is None:
                return None
            places.append((row, self.length - free[row]))
            free[row] -= length
            left[row] -= 1
        self._free, self._left = free, left
        return places
