"""The prefix cache: which kept sequences have their keys and values in one shard's pages.

Handles form a prefix tree, like the radix tree of SGLang's RadixAttention, but requests name the
handle that they continue: nothing is looked up by content.

The cached keys and values of a handle of n tokens are its *entry*: the first n - 1 tokens, in
ceil((n - 1) / page_size) pages. The last token is left out, since it has not been through the model
when a sequence ends; the decode program computes its keys and values when the handle is continued.
Entries share pages with each other and with running sequences by reference count, and are never
written: a sequence that continues an entry shares its full pages (`PagePool.share`) and copies the
last one if it is partial.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike

from stair_jax.decoding.cache.page_pool import PageIds, PagePool
from stair_jax.decoding.requests import Handle

_NO_PAGES: PageIds = np.zeros(0, np.int32)


# Compared and hashed by identity.
@dataclass(slots=True, eq=False)
class _CachedPrefix:
    """A handle that has an entry or a pin, or an ancestor of one.

    Attributes:
        handle: the sequence.
        pages: [N] int32, page ids of its entry; None without an entry.
        below: number of entries among its descendants.
        pins: number of pins on it and on its descendants.
        used: logical time of its last use.
        queued: whether it is in the heap of evictable leaves.
    """

    handle: Handle
    pages: PageIds | None = None
    below: int = 0
    pins: int = 0
    used: int = 0
    queued: bool = False

    @property
    def is_loose(self) -> bool:
        """Whether its entry can be evicted, once its descendants have no entries."""
        return self.pages is not None and self.pins == 0


class PrefixCache:
    """Entries by handle, with eviction of the least recently used leaf first.

    An entry is evicted only after those of all of its descendants: a child's entry normally shares
    its parent's full pages, so that evicting the parent first would free at most one partial page.

    Attributes:
        evicted: number of entries that `evict` has dropped so far.
    """

    def __init__(self, pool: PagePool, page_size: int) -> None:
        """Creates an empty cache.

        Args:
            pool: the pages, which running sequences use as well.
            page_size: tokens per page.
        """
        self.evicted = 0
        self._pool = pool
        self._page_size = page_size
        self._nodes: dict[Handle, _CachedPrefix] = {}
        self._num_entries = 0
        # Weak: a released handle is remembered only while sequences or descendants still refer to
        # it.
        self._released: WeakSet[Handle] = WeakSet()
        self._clock = 0
        # [num_pages] the number of references to each page that belong to evictable entries.
        self._loose = np.zeros(pool.num_pages, np.int32)
        # A lazy heap of (time of use, tie breaker, node). Each evictable leaf is in it once, under
        # the time of its last use or an earlier one. Touching or pinning a node does not update the
        # heap: outdated items are dropped or queued again when they are popped.
        self._heap: list[tuple[int, int, _CachedPrefix]] = []
        self._order = count()

    def __len__(self) -> int:
        """Number of entries."""
        return self._num_entries

    def __contains__(self, handle: Handle) -> bool:
        """Whether the handle has an entry."""
        node = self._nodes.get(handle)
        return node is not None and node.pages is not None

    @property
    def evictable_pages(self) -> int:
        """Exact number of pages that come free if `evict` drops every entry that it may.

        A page comes free if all of its references belong to entries without pins.
        """
        return int(np.count_nonzero((self._loose > 0) & (self._loose == self._pool.counts)))

    def num_pages(self, num_tokens: int) -> int:
        """Number of pages in the entry of a sequence of `num_tokens` tokens."""
        return -(-(num_tokens - 1) // self._page_size)

    def find(self, handle: Handle | None) -> tuple[Handle | None, PageIds, int]:
        """Finds the nearest handle that has an entry, among this one and its ancestors.

        Returns:
            The handle, the page ids of its entry ([N] int32), and the number of tokens whose keys
            and values they hold; (None, no pages, 0) if there is none.
        """
        for ancestor in _lineage(handle):
            node = self._nodes.get(ancestor)
            if node is not None and node.pages is not None:
                return ancestor, node.pages, len(ancestor.tokens) - 1
        return None, _NO_PAGES, 0

    def touch(self, handle: Handle | None) -> None:
        """Marks the handle and its ancestors as used now."""
        self._clock += 1
        for ancestor in _lineage(handle):
            node = self._nodes.get(ancestor)
            if node is not None:
                node.used = self._clock

    def insert(self, handle: Handle, pages: ArrayLike) -> None:
        """Creates an entry, used now, and takes over one reference to each of its pages.

        If the handle already has an entry, or was removed and is not pinned, the references are
        released and nothing is created.

        Args:
            handle: the sequence.
            pages: [N] int32 page ids in sequence order.

        Raises:
            ValueError: the number of pages does not fit the number of the handle's tokens.
        """
        pages = np.array(pages, np.int32)
        if len(pages) != self.num_pages(len(handle.tokens)):
            raise ValueError(
                f"{len(handle.tokens)} tokens have {self.num_pages(len(handle.tokens))} pages of "
                f"{self._page_size}, not {len(pages)}"
            )
        node = self._node(handle)
        self.touch(handle)
        if node.pages is None and (node.pins or handle not in self._released):
            pages.flags.writeable = False
            self._enter(node, pages)
        else:
            self._pool.drop(pages)
        # `_node` may have created a node that nothing was entered into.
        self._forget(node)

    def adopt(self, handle: Handle, pages: ArrayLike) -> None:
        """Creates the entries that a prefilled sequence contains, by sharing its pages.

        These are the entries of the handle and of its ancestors, up to the nearest ancestor that
        has one already. Removed handles are skipped.

        Args:
            handle: the sequence that was prefilled, or a prefix of it.
            pages: [N] int32 page ids of the sequence, at least as many as the handle's entry has;
                the caller keeps its own references.

        Raises:
            ValueError: there are too few pages, or some are not in use.
        """
        pages = np.asarray(pages, np.int32)
        if len(pages) < self.num_pages(len(handle.tokens)):
            raise ValueError(f"{len(handle.tokens)} tokens have more pages than {len(pages)}")
        for ancestor in _lineage(handle):
            if ancestor in self:
                if ancestor is handle:
                    continue
                break
            if ancestor not in self._released:
                own = pages[: self.num_pages(len(ancestor.tokens))]
                self._pool.share(own)
                self.insert(ancestor, own)
        self.touch(handle)

    def pin(self, handle: Handle) -> None:
        """Protects the entries of the handle and of its ancestors, including future ones.

        Neither `evict` nor `remove` drops them until `unpin` has been called as often as `pin`.
        """
        for ancestor in _lineage(handle):
            node = self._node(ancestor)
            if node.is_loose:
                self._loose[node.pages] -= 1
            node.pins += 1

    def unpin(self, handle: Handle) -> None:
        """Removes one pin.

        Raises:
            ValueError: the handle is not pinned.
        """
        # Checked before anything changes, so that a failing call has no effect.
        if any(a not in self._nodes or not self._nodes[a].pins for a in _lineage(handle)):
            raise ValueError("the handle is not pinned")
        for ancestor in _lineage(handle):
            node = self._nodes[ancestor]
            node.pins -= 1
            if node.is_loose:
                self._loose[node.pages] += 1
                # `remove` was called while the entry was pinned: drop it now.
                if ancestor in self._released:
                    self._leave(node)
                self._queue(node)
            self._forget(node)

    def remove(self, handle: Handle) -> None:
        """Drops the entry of a released handle for good, after its last pin is gone.

        The handle object still links its descendants to its ancestors.
        """
        self._released.add(handle)
        node = self._nodes.get(handle)
        if node is not None and node.is_loose:
            self._leave(node)
            self._forget(node)

    def shorten(self, old: Handle, new: Handle, num_tokens: int) -> None:
        """Removes a handle and gives the first pages of its entry, if any, to a shorter one.

        Args:
            old: the handle that is released.
            new: the handle of its first `num_tokens` tokens.
            num_tokens: at most the number of tokens of `old`.

        Raises:
            ValueError: the numbers of tokens do not fit.
        """
        if not len(new.tokens) == num_tokens <= len(old.tokens):
            raise ValueError(
                f"{num_tokens} of {len(old.tokens)} tokens are not a handle of {len(new.tokens)}"
            )
        if old in self:
            pages = self._nodes[old].pages
            assert pages is not None
            pages = pages[: self.num_pages(num_tokens)]
            # Shared before `remove` releases the references of the old entry.
            self._pool.share(pages)
            self.insert(new, pages)
        self.remove(old)

    def evict(self, num_pages: int) -> bool:
        """Evicts entries until `num_pages` pages are free.

        Evicting an entry whose pages are all shared frees nothing; the loop then goes on with the
        next.

        Returns:
            Whether that many pages are free now. If not, no evictable entry is left.
        """
        while self._pool.num_free < num_pages:
            if not self._heap:
                return False
            used, _, node = heapq.heappop(self._heap)
            node.queued = False
            # Outdated: pinned, dropped, or no longer a leaf since it was queued.
            if not node.is_loose or node.below:
                continue
            # Used since it was queued: back in with the current time.
            if used < node.used:
                self._queue(node)
                continue
            self._leave(node)
            self._forget(node)
            self.evicted += 1
        return True

    def clear(self) -> None:
        """Drops all entries; the handles stay valid.

        Raises:
            ValueError: a handle is pinned.
        """
        nodes = list(self._nodes.values())
        if any(node.pins for node in nodes):
            raise ValueError("entries are pinned")
        for node in nodes:
            if node.pages is not None:
                self._pool.drop(node.pages)
        self._nodes.clear()
        self._heap.clear()
        self._loose[:] = 0
        self._num_entries = 0

    def _node(self, handle: Handle) -> _CachedPrefix:
        if handle not in self._nodes:
            self._nodes[handle] = _CachedPrefix(handle)
        return self._nodes[handle]

    def _forget(self, node: _CachedPrefix) -> None:
        """Deletes a node that carries no information any more."""
        if node.pages is None and not node.pins and not node.below:
            self._nodes.pop(node.handle, None)

    def _enter(self, node: _CachedPrefix, pages: PageIds) -> None:
        node.pages = pages
        self._num_entries += 1
        if node.is_loose:
            # Plain `+=`: the pages of one entry are distinct, unlike those passed to `PagePool`.
            self._loose[pages] += 1
        for ancestor in _lineage(node.handle.parent):
            self._node(ancestor).below += 1
        self._queue(node)

    def _leave(self, node: _CachedPrefix) -> None:
        assert node.pages is not None
        if node.is_loose:
            self._loose[node.pages] -= 1
        self._pool.drop(node.pages)
        node.pages = None
        self._num_entries -= 1
        for ancestor in _lineage(node.handle.parent):
            above = self._nodes[ancestor]
            above.below -= 1
            # It may have become a leaf.
            self._queue(above)
            self._forget(above)

    def _queue(self, node: _CachedPrefix) -> None:
        """Puts an evictable leaf into the heap unless it is there."""
        if node.is_loose and not node.below and not node.queued:
            node.queued = True
            heapq.heappush(self._heap, (node.used, next(self._order), node))
            # Bounds the outdated items by the number of entries, at constant amortised cost.
            if len(self._heap) > 2 * self._num_entries + 64:
                self._sweep()

    def _sweep(self) -> None:
        """Rebuilds the heap without outdated items."""
        kept = []
        for item in self._heap:
            node = item[2]
            node.queued = node.is_loose and not node.below
            if node.queued:
                kept.append(item)
        heapq.heapify(kept)
        self._heap = kept


def _lineage(handle: Handle | None) -> Iterator[Handle]:
    """Yields the handle, its parent, and so on up to the root."""
    while handle is not None:
        yield handle
        handle = handle.parent
