"""Which pages of one shard's cache are in use, and by how many holders."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

PageIds = NDArray[np.int32]


class PagePool:
    """Reference counts of pages 0 to `num_pages` - 1, on the host.

    Page 0 is never given out: it fills up tables, and nothing is written there. Each call handles
    all of its pages at once; one that raises changes nothing.
    """

    def __init__(self, num_pages: int) -> None:
        """All pages but page 0 are free.

        Raises:
            ValueError: when there is no room for page 0.
        """
        if num_pages < 1:
            raise ValueError(f"a pool needs at least page 0, not {num_pages} pages")
        self._counts = np.zeros(num_pages, np.int32)
        # A stack: the first `num_free` elements are the free pages, the last of them goes first.
        self._free = np.arange(num_pages - 1, -1, -1, dtype=np.int32)
        self._num_free = num_pages - 1

    @property
    def num_pages(self) -> int:
        """All pages, page 0 too."""
        return len(self._counts)

    @property
    def num_free(self) -> int:
        """Pages that `take` can give out."""
        return self._num_free

    @property
    def counts(self) -> PageIds:
        """The references of each page, [num_pages]; a view that cannot be written."""
        view = self._counts.view()
        view.flags.writeable = False
        return view

    def count(self, ids: ArrayLike) -> PageIds:
        """The references of these pages.

        Raises:
            ValueError: when one of them is not in the pool.
        """
        ids = np.asarray(ids, np.int32)
        try:
            return self._counts[ids.view(np.uint32)]  # a negative one is beyond the last, too
        except IndexError:
            raise ValueError(f"the pool has pages 0 to {self.num_pages - 1}, not {ids}") from None

    def take(self, count: int) -> PageIds | None:
        """So many free pages, with one reference each; None when there are too few.

        Raises:
            ValueError: when `count` is negative.
        """
        if count < 0:
            raise ValueError(f"cannot take {count} pages")
        if count > self._num_free:
            return None
        self._num_free -= count
        ids = self._free[self._num_free : self._num_free + count][::-1].copy()
        self._counts[ids] = 1
        return ids

    def share(self, ids: ArrayLike) -> None:
        """One more reference to each page, for each time that it is named.

        Raises:
            ValueError: when a page is not in use.
        """
        ids = self._used(ids)
        np.add.at(self._counts, ids, np.int32(1))

    def drop(self, ids: ArrayLike) -> None:
        """One reference less to each page, for each time that it is named; at none, it is free.

        Raises:
            ValueError: when a page is not in use, or is named more often than it has references.
        """
        ids = self._used(ids)
        if not ids.size:
            return
        np.subtract.at(self._counts, ids, np.int32(1))
        left = self._counts[ids]
        if (left < 0).any():
            np.add.at(self._counts, ids, np.int32(1))
            raise ValueError(f"pages {ids[left < 0]} lose more references than they have")
        freed = np.sort(ids[left == 0])
        if (freed[1:] == freed[:-1]).any():
            freed = np.unique(freed)
        self._free[self._num_free : self._num_free + len(freed)] = freed
        self._num_free += len(freed)

    def _used(self, ids: ArrayLike) -> PageIds:
        ids = np.asarray(ids, np.int32)
        counts = self.count(ids)
        if not counts.all():
            raise ValueError(f"pages {ids[counts == 0]} are not in use")
        return ids
