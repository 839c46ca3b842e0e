"""Which rows have which id: 24 bytes a row in place of the ids themselves."""

import hashlib
from collections.abc import Callable
from functools import cached_property

import numpy as np


def hash_id(id: str) -> int:
    """A hash of 64 bits."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little")


class IdIndex:
    """The places of ids among rows, by hashes; ids of the same hash are told apart by reading them.

    Among 10^6 rows two ids have the same hash with a probability of 3e-8 (the birthday bound).
    """

    def __init__(self, hashes: np.ndarray, id_at: Callable[[int], str]):
        """An index of rows.

        Args:
          hashes: of their ids, `hash_id`, [rows] uint64.
          id_at: reads the id of a row.
        """
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        self._id_at = id_at

    def places(self, id: str) -> list[int]:
        """The places of the rows that have this id, in order; []: none."""
        key = np.uint64(hash_id(id))
        first, end = (int(np.searchsorted(self._sorted, key, side)) for side in ("left", "right"))
        found = map(int, self._order[first:end])
        return [place for place in found if self._id_at(place) == id]

    @cached_property
    def firsts(self) -> np.ndarray:
        """For each row the place of the first one with its id, [rows] int64."""
        firsts = np.arange(len(self._order))
        is_new = np.ones(len(self._order) + 1, bool)
        is_new[1:-1] = self._sorted[1:] != self._sorted[:-1]
        bounds = np.flatnonzero(is_new)
        for group in np.flatnonzero(np.diff(bounds) > 1):
            self._tell_apart(firsts, self._order[bounds[group] : bounds[group + 1]])
        return firsts

    def _tell_apart(self, firsts: np.ndarray, places: np.ndarray) -> None:
        """Sets the `firsts` of rows whose ids have one hash."""
        found: dict[str, int] = {}
        for place in map(int, places):
            firsts[place] = found.setdefault(self._id_at(place), place)
