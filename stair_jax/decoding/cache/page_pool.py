"""The page pool of the paged KV cache: reference counts of one shard's pages, on the host."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# [N] int32 arrays of page ids, counted from 0 within a shard.
PageIds = NDArray[np.int32]


class PagePool:
    """Reference counts of the pages 0 to `num_pages - 1`.

    Page 0 is reserved: it pads page tables, is never handed out and never written. Every method is
    vectorised over all of its pages, as a scalar loop would cost the host too much in each round. A
    method that raises changes nothing.
    """

    def __init__(self, num_pages: int) -> None:
        """Creates a pool in which all pages but page 0 are free.

        Args:
            num_pages: number of pages, including page 0.

        Raises:
            ValueError: `num_pages` is less than 1.
        """
        if num_pages < 1:
            raise ValueError(f"a pool needs at least page 0, not {num_pages} pages")
        self._counts = np.zeros(num_pages, np.int32)
        # A stack in a fixed array: the first `_num_free` elements are the free pages, top at the
        # end. Descending, so that low page ids are handed out first.
        self._free = np.arange(num_pages - 1, -1, -1, dtype=np.int32)
        self._num_free = num_pages - 1

    @property
    def num_pages(self) -> int:
        """Number of pages, including page 0."""
        return len(self._counts)

    @property
    def num_free(self) -> int:
        """Number of pages that `take` can hand out."""
        return self._num_free

    @property
    def counts(self) -> PageIds:
        """[num_pages] int32, the references to each page, as a read-only view."""
        view = self._counts.view()
        view.flags.writeable = False
        return view

    def count(self, ids: ArrayLike) -> PageIds:
        """The number of references to each of the given pages.

        Raises:
            ValueError: a page id is outside of the pool.
        """
        ids = np.asarray(ids, np.int32)
        try:
            return self._counts[ids.view(np.uint32)]  # unsigned, so that -1 is out of range too
        except IndexError:
            raise ValueError(f"the pool has pages 0 to {self.num_pages - 1}, not {ids}") from None

    def take(self, count: int) -> PageIds | None:
        """Hands out free pages, with one reference each.

        Args:
            count: number of pages.

        Returns:
            [count] int32 page ids, or None when fewer pages are free.

        Raises:
            ValueError: `count` is negative.
        """
        if count < 0:
            raise ValueError(f"cannot take {count} pages")
        if count > self._num_free:
            return None
        self._num_free -= count
        # Copied, as later calls of `drop` overwrite this part of the stack.
        ids = self._free[self._num_free : self._num_free + count][::-1].copy()
        self._counts[ids] = 1
        return ids

    def share(self, ids: ArrayLike) -> None:
        """Adds one reference to each page, once for each time that it is listed.

        Raises:
            ValueError: a page is not in use.
        """
        ids = self._used(ids)
        # `counts[ids] += 1` would count a page that is listed twice only once.
        np.add.at(self._counts, ids, np.int32(1))

    def drop(self, ids: ArrayLike) -> None:
        """Removes one reference from each page, once for each time that it is listed.

        A page without references is free.

        Raises:
            ValueError: a page is not in use, or is listed more often than it has references.
        """
        ids = self._used(ids)
        if not ids.size:
            return
        np.subtract.at(self._counts, ids, np.int32(1))
        left = self._counts[ids]
        # `np.count_nonzero` takes a tenth of the time of `any` and `all` on so few elements.
        if np.count_nonzero(left < 0):
            np.add.at(self._counts, ids, np.int32(1))
            raise ValueError(f"pages {ids[left < 0]} lose more references than they have")
        freed = ids[left == 0]
        freed.sort()
        # A page that is listed twice and is free now stands here twice. The check on sorted ids is
        # cheaper than `np.unique`, which is rarely needed.
        if np.count_nonzero(freed[1:] == freed[:-1]):
            freed = np.unique(freed)
        self._free[self._num_free : self._num_free + len(freed)] = freed
        self._num_free += len(freed)

    def _used(self, ids: ArrayLike) -> PageIds:
        ids = np.asarray(ids, np.int32)
        counts = self.count(ids)
        if np.count_nonzero(counts) < counts.size:
            raise ValueError(f"pages {ids[counts == 0]} are not in use")
        return ids
