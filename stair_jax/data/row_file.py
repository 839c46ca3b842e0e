"""Records in JSON lines that are read when they are asked for: a file may be larger than memory."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self, TypeVar, overload

import numpy as np

from stair_jax.data.id_index import IdIndex, hash_id
from stair_jax.data.records import Record
from stair_jax.errors import UserError
from stair_jax.storage import iterate_jsonl, parse_row, reading

R = TypeVar("R", bound=Record)


class RowFile(Sequence[R]):
    """The records of a file, as a sequence.

    The file is read once, line by line, and each line is checked; what stays in memory are the
    places of the lines and hashes of the ids, 24 bytes a row, and as much again where ids are
    looked up. A row is then read from its place.
    """

    def __init__(
        self,
        path: str | Path,
        record: type[R],
        unique_ids: bool = True,
        visit: Callable[[int, R], None] = lambda place, row: None,
    ):
        """Reads and checks the file.

        Args:
          path: JSON lines.
          record: what they are.
          unique_ids: whether an id that comes again is an error.
          visit: called with the place and the record of each row, in order.

        Raises:
          UserError: the file is empty, or a line is no such record or repeats an id.
        """
        self._path, self._record = Path(path), record
        self._change: Callable[[R], R] = lambda row: row
        bounds, hashes = array("q"), array("Q")
        for place, line in enumerate(iterate_jsonl(path)):
            row = record.from_dict(line.row, f"{path}, line {place + 1}")
            bounds.extend((line.start, line.end))
            hashes.append(hash_id(row.id))
            visit(place, row)
        if not hashes:
            raise UserError(f"{path} is empty: it needs at least one line")
        self._bounds = np.array(bounds, np.int64).reshape(-1, 2)
        self._hashes = np.array(hashes, np.uint64)
        if unique_ids:
            self._check_unique()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._hashes)

    @overload
    def __getitem__(self, place: int) -> R: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> R | Self:
        """Reads the row of a place; of a slice, the rows as another such sequence."""
        if isinstance(place, slice):
            return self.select(np.arange(len(self))[place])
        with reading(self._path), open(self._path, "rb") as file:
            return self._read(file, range(len(self))[place])

    def __iter__(self) -> Iterator[R]:
        """Reads the rows one after another."""
        with reading(self._path), open(self._path, "rb") as file:
            for place in range(len(self)):
                yield self._read(file, place)

    def select(self, places: np.ndarray | Sequence[int]) -> Self:
        """The rows of these places, in their order."""
        chosen = copy(self)
        chosen.__dict__.pop("ids", None)
        chosen._bounds, chosen._hashes = self._bounds[places], self._hashes[places]
        return chosen

    def map(self, change: Callable[[R], R]) -> Self:
        """The same rows, each changed as it is read; ids have to stay as they are."""
        changed, before = copy(self), self._change
        changed._change = lambda row: change(before(row))
        return changed

    @cached_property
    def ids(self) -> IdIndex:
        """Which rows have which id."""
        return IdIndex(self._hashes, lambda place: self[place].id)

    def _read(self, file: BinaryIO, place: int) -> R:
        start, end = map(int, self._bounds[place])
        file.seek(start)
        line = file.read(end - start)
        where = f"{self._path}, row {place + 1},"
        try:
            row = self._record.from_dict(parse_row(line.decode(), where), where.rstrip(","))
        except (UserError, UnicodeDecodeError) as error:
            raise self._changed() from error
        if hash_id(row.id) != int(self._hashes[place]):
            raise self._changed()
        return self._change(row)

    def _changed(self) -> UserError:
        return UserError(f"{self._path} was changed while it was read: run the same command again")

    def _check_unique(self) -> None:
        firsts = self.ids.firsts
        repeated = np.flatnonzero(firsts != np.arange(len(firsts)))
        if len(repeated):
            place = int(repeated[0])
            raise UserError(
                f"{self._path}, line {place + 1}: id {self[place].id!r} is already used in line "
                f"{firsts[place] + 1}: ids must be unique"
            )
