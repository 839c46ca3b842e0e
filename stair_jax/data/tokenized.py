"""Lazily tokenised rows: all lengths are known up front, tokens are made on access.

In a multi-process run the tokenisation is sharded: each process tokenises its share of the rows,
the lengths are exchanged, and later each process tokenises only the rows that land on its devices.
Lengths are all that packing needs, so all processes compute the same layout.
"""

import copy
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar, overload

import numpy as np

from stair_jax.data.packing import COUNTED, SFT_ALONE, Example
from stair_jax.data.records import Record
from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives

R = TypeVar("R", bound=Record)
Gather = Callable[[np.ndarray], np.ndarray]

_REMEMBERED = 256  # size of the LRU cache for rows that another process has measured
_FAILED = -1  # stands for the lengths of a row that could not be tokenised
# Of each sequence: its length, counted tokens, those of weight, a checksum, those of SFT alone.
_MEASURED = 5


class LazyIds(Sequence[int]):
    """A sequence of integers of known length, computed each time that it is read."""

    def __init__(self, length: int, make: Callable[[], np.ndarray]):
        """`make` returns an int32 array, of which the first `length` entries count."""
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._make()[: self._length], dtype)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self.__array__().tolist()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self.__array__().tolist())


class TokenizedRows(Sequence[tuple[Example, ...]], Generic[R]):
    """For each row its G sequences, e.g. the two sides of a pair.

    Attributes:
      rows: N of them.
      lengths: [N, G] int32, tokens per sequence.
      counted: [N, G] int32, how many tokens at the end of each sequence the loss counts.
      weighted: [N, G] int32, how many of these are no end tokens: an example without any has
        nothing to learn from.
      checksums: [N, G] int32, of all tokens, to tell whether two sequences are the same.
      sft_alone: [N, G] int32, how many before the counted ones the SFT term of the DPO loss counts
        alone.
    """

    def __init__(
        self,
        rows: Sequence[R],
        encode: Callable[[R], Sequence[Example]],
        width: int,
        share: tuple[int, int] | None = None,
        gather: Gather | None = None,
        ends: Collection[int] = (),
    ):
        """Determines all lengths. Collective: all processes call it with the same rows.

        Args:
          rows: their ids are those of the sequences.
          encode: the sequences of a row; the loss mask of each is 0, then SFT_ALONE,
            then COUNTED; one of the three may be absent.
          width: G.
          share: (index of this process, number of processes); None: those of the run.
          gather: array of this process -> the arrays of all, stacked along a new leading axis;
            None: JAX's all-gather over processes.
          ends: ids of end tokens, which stand behind an answer.

        Raises:
          UserError: that of `encode`, raised in all processes, whichever process tokenised the row.
        """
        self.rows, self._encode = rows, encode
        process, count = share or (collectives.process_index(), collectives.num_processes())
        self._made: dict[int, list[np.ndarray]] = {}  # of the rows that this process measured
        self._make_again = lru_cache(_REMEMBERED)(self._make)
        sizes = np.full((-(-len(rows) // count), width, _MEASURED), _FAILED, np.int32)
        for place, index in enumerate(range(process, len(rows), count)):
            try:
                examples = encode(rows[index])
            except UserError:
                if count == 1:
                    raise
                continue  # raising here would leave the others waiting in `gather`
            self._made[index] = [_ids(example) for example in examples]
            sizes[place] = [_measure(example, ends) for example in examples]
        if count > 1:
            # [P, n, G, 5] -> [n, P, G, 5] -> [N, G, 5]: row i was measured by process i mod P. The
            # last row of some processes may be padding, which the slice removes.
            sizes = (gather or _gather)(sizes).swapaxes(0, 1)
            sizes = sizes.reshape(-1, width, _MEASURED)[: len(rows)]
            for failed in np.flatnonzero((sizes == _FAILED).any((1, 2))).tolist():
                encode(rows[failed])
        self.lengths, self.counted, self.weighted, self.checksums, self.sft_alone = np.moveaxis(
            sizes, -1, 0
        )

    def truncated(self, length: int) -> "TokenizedRows[R]":
        """The same, where longer sequences have lost their end; checksums are of the whole."""
        other = copy.copy(self)
        other.lengths = np.minimum(self.lengths, length)
        other.counted = np.maximum(self.counted - (self.lengths - other.lengths), 0)
        other.weighted = np.minimum(self.weighted, other.counted)  # end tokens are cut first
        return other

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> tuple[Example, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Example, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Example, ...] | list[tuple[Example, ...]]:
        """The G sequences of a row, or those of each row of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return tuple(self._example(index, side) for side in range(self.lengths.shape[1]))

    def _example(self, index: int, side: int) -> Example:
        length, counted, alone = (
            int(sizes[index, side]) for sizes in (self.lengths, self.counted, self.sft_alone)
        )
        return Example(
            LazyIds(length, partial(self._tokens, index, side)),
            LazyIds(length, partial(_mask, length, counted, alone)),
            self.rows[index].id,
        )

    def _tokens(self, index: int, side: int) -> np.ndarray:
        made = self._made.get(index)
        return (self._make_again(index) if made is None else made)[side]

    def _make(self, index: int) -> list[np.ndarray]:
        return [_ids(example) for example in self._encode(self.rows[index])]


def _measure(example: Example, ends: Collection[int]) -> tuple[int, int, int, int, int]:
    ids, mask = _ids(example), np.asarray(example.loss_mask)
    counted = ids[mask == COUNTED]
    weighted = len(counted) - int(np.isin(counted, list(ends)).sum())
    checksum = zlib.crc32(ids.tobytes()) & 0x7FFFFFFF  # int32, and never `_FAILED`
    return len(example), len(counted), weighted, checksum, int(np.sum(mask == SFT_ALONE))


def _ids(example: Example) -> np.ndarray:
    return np.asarray(example.tokens, np.int32)


def _mask(length: int, counted: int, sft_alone: int) -> np.ndarray:
    mask = np.zeros(length, np.int32)
    mask[max(length - counted - sft_alone, 0) :] = SFT_ALONE
    mask[length - counted :] = COUNTED
    return mask


def _gather(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
