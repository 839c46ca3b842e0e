"""Sequence packing: several sequences per row, by first fit, with static shapes.

Sequences in a row are kept apart by segment ids. No mask is ever derived from a token id (a pad id
may be a real token): padding is where `segment_ids` is 0, and the loss counts where `weights` is
not 0.

`training.batches` passes the longest sequences first (first-fit decreasing); best fit then fills
the rows no better than first fit.
"""

from collections.abc import Hashable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

COUNTED, SFT_ALONE = 1, 2  # values of a loss mask


@dataclass(frozen=True)
class Example:
    """One token sequence of length L >= 1, with its loss mask.

    The loss mask is COUNTED where the loss counts the token as a target, SFT_ALONE where the SFT
    term of the DPO loss may count it but the DPO loss itself does not, and 0 elsewhere.
    """

    tokens: Sequence[int]  # [L] token ids
    loss_mask: Sequence[int]  # [L]
    id: Hashable = ""  # for messages

    def __post_init__(self) -> None:
        """Raises a ValueError for an empty sequence or a mask of another length."""
        if len(self.tokens) == 0 or len(self.tokens) != len(self.loss_mask):
            raise ValueError(
                f"example {self.id!r}: {len(self.tokens)} tokens, mask of {len(self.loss_mask)}"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_counted(self) -> int:
        """Tokens that the loss counts."""
        return int(np.sum(np.asarray(self.loss_mask) == COUNTED))


@dataclass(frozen=True)
class Packed:
    """N sequences packed into B rows of T tokens (or some of these rows).

    The target of a position is the next token of its sequence, and its weight is 1 where the loss
    mask of that target is COUNTED. The last position of a sequence has no target: target 0, weight
    0.
    """

    tokens: np.ndarray  # [B, T] int32
    targets: np.ndarray  # [B, T] int32
    positions: np.ndarray  # [B, T] int32, from 0 in each sequence
    segment_ids: np.ndarray  # [B, T] int32, 1, 2, ... along a row; 0 is padding
    weights: np.ndarray  # [B, T] float32
    sft_weights: np.ndarray  # [B, T] float32, 1 where the loss mask is SFT_ALONE
    sequence_ids: np.ndarray  # [B, T] int32, index of the example; N for padding
    last: np.ndarray  # [N] int32, position of each example's last token in the flattened [B * T]


def most_sequences(length: int) -> int:
    """Most sequences that a row of `length` tokens may hold.

    cuDNN's backward pass over packed rows allocates workspace for every row and possible segment,
    so its number is bounded: `length` / 64 segments including padding, or 16 for short rows.
    """
    return max(15, length // 64 - 1)


def pack(
    examples: Sequence[Example],
    length: int,
    num_rows: int | None = None,
    part: slice | None = None,
    row_sequences: int = 0,
) -> Packed:
    """Packs examples in the given order, each into the first row with room for it (first fit).

    Args:
      examples: N examples of at most `length` tokens each.
      length: T.
      num_rows: B; None: as many rows as are needed.
      part: a contiguous slice of the rows to make; None: all. Tokens of other rows are not read.
      row_sequences: most examples of a row; 0: `most_sequences`.

    Raises:
      ValueError: the examples do not fit into the rows.
    """
    rows = FirstFitRows(len(examples) if num_rows is None else num_rows, length, row_sequences)
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
        sft_weights=np.zeros(shape, np.float32),
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
        mask = np.asarray(example.loss_mask)[1:]
        packed.weights[place, start : end - 1] = mask == COUNTED
        packed.sft_weights[place, start : end - 1] = mask == SFT_ALONE
        packed.sequence_ids[place, start:end] = index
    return packed


def split(
    groups: Sequence[Sequence[Sized]], length: int, num_rows: int, row_sequences: int = 0
) -> list[list[int]]:
    """Assigns groups of examples to blocks of `num_rows` rows by first fit; no group is split.

    With at most g examples per group there are at most ceil(len(groups) / floor(num_rows / g))
    blocks; this many only if the examples are long.

    Args:
      groups: each a sequence of examples, or of anything with a length in tokens.
      length: tokens per row.
      num_rows: rows per block.
      row_sequences: most examples of a row; 0: `most_sequences`.

    Returns:
      for each block the indices of its groups; `pack` fits the examples of a block, in this order,
      into `num_rows` rows.

    Raises:
      ValueError: a group does not fit into an empty block.
    """
    blocks: list[tuple[FirstFitRows, list[int]]] = []
    for index, group in enumerate(groups):
        lengths = [len(example) for example in group]
        members = next((m for rows, m in blocks if rows.place(lengths) is not None), None)
        if members is None:
            blocks.append((FirstFitRows(num_rows, length, row_sequences), members := []))
            if blocks[-1][0].place(lengths) is None:
                raise ValueError(f"{lengths} tokens do not fit into {num_rows} rows of {length}")
        members.append(index)
    return [members for _, members in blocks]


class FirstFitRows:
    """Fill state of `count` rows of `length` tokens; each row is filled from its start."""

    def __init__(self, count: int, length: int, row_sequences: int = 0):
        self.count, self.length = count, length
        self._free = [length] * count
        self._left = [row_sequences or most_sequences(length)] * count

    @property
    def used(self) -> int:
        return sum(free < self.length for free in self._free)

    def place(self, lengths: Sequence[int]) -> list[tuple[int, int]] | None:
        """Places sequences of these lengths; all or none of them.

        Returns:
          (row, start) of each sequence; None, with the state unchanged, if one has no room.
        """
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
