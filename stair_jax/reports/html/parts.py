"""Lists whose rows have texts elsewhere: in blocks of the same file, or behind an address."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from stair_jax.storage import plain

Columns = dict[str, Any]
_LEVEL = 6  # of gzip: 9 takes two to three times as long, for 2 to 3 % less
_CHUNK = 1 << 18  # characters of JSON in a block of texts


@dataclass(frozen=True)
class Part:
    """A kind of rows of a run, such as its trees.

    Attributes:
      name: of the list's block, without the number of the run.
      lists: columns, one list or several; `place_rows` adds `block` and `slot`.
      sizes: rows of each of the lists.
      read: gives the texts of a row, numbered through all lists.
      order: the rows, those first that a file has where not all fit.
      is_single: whether the block is the one list, and no list of lists.
    """

    name: str
    lists: Sequence[Columns]
    sizes: Sequence[int]
    read: Callable[[int], Mapping[str, Any]]
    order: Sequence[int]
    is_single: bool = True

    def __len__(self) -> int:
        """Number of rows."""
        return sum(self.sizes)

    def block(self, blocks: Sequence[int | None], slots: Sequence[int]) -> Any:
        """The block of the list, where its rows are in these blocks, at these places."""
        starts = accumulate(self.sizes, initial=0)
        found = [
            columns | {"block": blocks[start : start + size], "slot": slots[start : start + size]}
            for columns, size, start in zip(self.lists, self.sizes, starts, strict=False)
        ]
        return found[0] if self.is_single else found

    def live_block(self) -> Any:
        """The block of the list, where each row is a block of its own that is asked for."""
        return self.block(list(range(len(self))), [0] * len(self))


@dataclass
class Packed:
    """What a file has of a part.

    Attributes:
      texts: the encoded blocks of texts, by number.
      blocks: of each row the number of its block; None: it has none.
      slots: of each row its place there.
    """

    texts: list[str] = field(default_factory=list)
    blocks: list[int | None] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows whose texts are in the file."""
        return sum(block is not None for block in self.blocks)


def pack(part: Part, most_rows: int, most_characters: int) -> Packed:
    """The texts of so many rows as blocks, in the order of the part.

    Args:
      part: of which texts are read one by one.
      most_rows: that are packed.
      most_characters: of all blocks, as they stand in the file.
    """
    packed = Packed([], [None] * len(part), [0] * len(part))
    left = most_characters
    for rows, texts in _chunks(part, most_rows):
        encoded = encode_text(f"[{','.join(texts)}]")
        if (left := left - len(encoded)) < 0:
            break
        for slot, row in enumerate(rows):
            packed.blocks[row], packed.slots[row] = len(packed.texts), slot
        packed.texts.append(encoded)
    return packed


def _chunks(part: Part, most_rows: int) -> Iterator[tuple[list[int], list[str]]]:
    """Rows with their JSON, some at a time."""
    rows: list[int] = []
    texts: list[str] = []
    size = 0
    for row in part.order[:most_rows]:
        text = to_json(part.read(row))
        rows.append(row)
        texts.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield rows, texts
            rows, texts, size = [], [], 0
    if rows:
        yield rows, texts


def to_json(value: Any) -> str:
    """JSON in ASCII without spaces; NaN and infinities become null."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False)


def encode_text(text: str) -> str:
    """Base64 of gzip, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), _LEVEL, mtime=0)).decode()


def in_turn(strata: Mapping[Any, Sequence[int]]) -> list[int]:
    """All rows, one of each stratum at a time, in the order of these."""
    left = [list(reversed(rows)) for rows in strata.values()]
    found = []
    while left := [rows for rows in left if rows]:
        found += [rows.pop() for rows in left]
    return found
