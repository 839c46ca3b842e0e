"""Rows as token sequences: the lengths of all are known, the tokens are made when asked for.

In a run of several processes each tokenises its share of the rows to learn their lengths, and
later the rows that land on its own devices; of the others it knows the lengths alone.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar, overload

import numpy as np

from stair_jax.data.packing import Example
from stair_jax.data.records import Record
from stair_jax.errors import UserError
from stair_jax.parallel import distributed

R = TypeVar("R", bound=Record)
Gather = Callable[[np.ndarray], np.ndarray]

_REMEMBERED = 256  # rows of other processes whose tokens were made last
_FAILED = -1


class LateIds(Sequence[int]):
    """A sequence of ids of known length, made anew each time that it is read."""

    def __init__(self, length: int, make: Callable[[], np.ndarray]):
        """`length` ids, which `make` gives as an int32 array."""
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


class Encoded(Sequence[tuple[Example, ...]], Generic[R]):
    """For each row its G sequences, e.g. the two sides of a pair.

    Attributes:
      rows: N of them.
      lengths: [N, G] int32, tokens of each sequence.
      counted: [N, G] int32, how many of them, at the end, the loss counts.
    """

    def __init__(
        self,
        rows: Sequence[R],
        encode: Callable[[R], Sequence[Example]],
        width: int,
        share: tuple[int, int] | None = None,
        gather: Gather | None = None,
    ):
        """Learns the lengths; called by all processes, with the same rows.

        Args:
          rows: their ids are those of the sequences.
          encode: the sequences of a row; the loss counts the end of each and nothing before it.
          width: G.
          share: number of this process, and of all of them; None: as `distributed` says.
          gather: the array of this process -> those of all, with a leading axis; None: over the
            processes of JAX.

        Raises:
          UserError: that of `encode`, in all processes, whichever met the row.
        """
        self.rows, self._encode = rows, encode
        process, count = share or (distributed.process_index(), distributed.num_processes())
        self._made: dict[int, list[np.ndarray]] = {}  # of the rows that this process measured
        self._make_again = lru_cache(_REMEMBERED)(self._make)
        sizes = np.full((-(-len(rows) // count), width, 2), _FAILED, np.int32)
        for place, index in enumerate(range(process, len(rows), count)):
            try:
                examples = encode(rows[index])
            except UserError:
                if count == 1:
                    raise
                continue  # the other processes wait for the lengths: all raise below
            self._made[index] = [_ids(example) for example in examples]
            sizes[place] = [(len(e), int(np.sum(e.loss_mask))) for e in examples]
        if count > 1:
            sizes = (gather or _gather)(sizes).swapaxes(0, 1).reshape(-1, width, 2)[: len(rows)]
            for failed in np.flatnonzero((sizes == _FAILED).any((1, 2))).tolist():
                encode(rows[failed])
        self.lengths, self.counted = sizes[..., 0], sizes[..., 1]

    def truncated(self, length: int) -> "Encoded[R]":
        """The same, where longer sequences have lost their end."""
        other = copy.copy(self)
        other.lengths = np.minimum(self.lengths, length)
        other.counted = np.maximum(self.counted - (self.lengths - other.lengths), 0)
        return other

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> tuple[Example, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Example, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Example, ...] | list[tuple[Example, ...]]:
        """The sequences of a row, or of several."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return tuple(self._example(index, side) for side in range(self.lengths.shape[1]))

    def _example(self, index: int, side: int) -> Example:
        length, counted = int(self.lengths[index, side]), int(self.counted[index, side])
        return Example(
            LateIds(length, partial(self._tokens, index, side)),
            LateIds(length, partial(_mask, length, counted)),
            self.rows[index].id,
        )

    def _tokens(self, index: int, side: int) -> np.ndarray:
        made = self._made.get(index)
        return (self._make_again(index) if made is None else made)[side]

    def _make(self, index: int) -> list[np.ndarray]:
        return [_ids(example) for example in self._encode(self.rows[index])]


def _ids(example: Example) -> np.ndarray:
    return np.asarray(example.tokens, np.int32)


def _mask(length: int, counted: int) -> np.ndarray:
    return (np.arange(length) >= length - counted).astype(np.int32)


def _gather(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
