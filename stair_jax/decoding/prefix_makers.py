"""The makers of one shard: sequences that compute the keys and values of kept handles.

A handle that was evicted from the prefix cache, or never computed, is prefilled once, by a maker,
while all sequences that continue it wait. The scheduler opens makers and prefills them like other
sequences; here is which handles have a maker, who waits for it, and which finished prefixes are
pinned until those that waited are opened.
"""

from collections.abc import Container, Set

from stair_jax.decoding.cache.page_pool import PagePool
from stair_jax.decoding.cache.prefix_cache import PrefixCache
from stair_jax.decoding.requests import Handle
from stair_jax.decoding.sequence import SequenceState


class PrefixMakers:
    """Which handles are being computed, and for whom.

    Attributes:
        making: handles that are being computed, with their makers. One maker may stand under
            several handles, as it also computes the ancestors that are missing.
        made: makers whose last chunk was taken in this round: `publish` shares their prefixes in
            the next one.
        held: waiting sequences whose parent was computed for them, with the handle that stays
            pinned until they are opened.
    """

    def __init__(self, pool: PagePool, prefix_cache: PrefixCache, kept: Container[Handle]):
        """Creates an empty set of makers.

        Args:
            pool: the pages of the shard.
            prefix_cache: its prefix cache.
            kept: the handles that have not been released, maintained by the engine.
        """
        self.making: dict[Handle, SequenceState] = {}
        self.made: list[SequenceState] = []
        self.held: dict[SequenceState, Handle] = {}
        self._pool = pool
        self._prefix_cache = prefix_cache
        self._kept = kept

    def is_needed(self, handle: Handle | None) -> bool:
        """Whether a handle should be computed before the sequences that continue it.

        True for a handle that is not cached and has not been released. The keys and values of a
        released one would serve one sequence only, which prefills them as a part of its own prompt.
        A handle of one token has no keys and values to cache.
        """
        if handle is None or len(handle.tokens) == 1 or handle not in self._kept:
            return False
        return handle not in self._prefix_cache

    def find(self, handle: Handle | None) -> tuple[SequenceState | None, list[Handle]]:
        """The maker of a handle, or of its nearest ancestor that has one.

        One prefill computes a handle and all ancestors that are missing, so that siblings further
        up find theirs as well. If one of them is being computed, whoever needs the handle waits for
        that first, and what remains below it is computed afterwards.

        Returns:
            The maker, or None; and the handles below it that are not in the cache, the given one
            first.
        """
        missing: list[Handle] = []
        while handle is not None and handle not in self._prefix_cache:
            if handle in self.making:
                return self.making[handle], missing
            missing.append(handle)
            handle = handle.parent
        return None, missing

    def add(self, maker: SequenceState, handles: list[Handle]) -> None:
        """Enters a maker, which was opened, under each handle that it computes."""
        for handle in handles:
            self.making[handle] = maker

    def publish(self) -> list[SequenceState]:
        """Enters the prefixes that were prefilled in the previous round into the prefix cache.

        Copies run before prefills within a round, so a partial page can be copied from the round
        after its prefill on.

        Returns:
            The sequences that waited for them.
        """
        released: list[SequenceState] = []
        for maker in self.made:
            assert maker.handle is not None
            self._prefix_cache.adopt(maker.handle, maker.pages)
            self._pool.drop(maker.pages)
            for waiter in maker.waiters:
                # Pinned until the waiter is opened. Otherwise the next allocation could evict it,
                # and two sequences could go on computing their prefixes in turn, for ever.
                found = self._prefix_cache.find(waiter.parent)[0]
                if found is not None:
                    self._prefix_cache.pin(found)
                    self.held[waiter] = found
            released += self.stop(maker)
        self.made = []
        return released

    def stop(self, maker: SequenceState) -> list[SequenceState]:
        """Takes a maker out.

        Returns:
            The sequences that waited for it.
        """
        for handle in [handle for handle, other in self.making.items() if other is maker]:
            del self.making[handle]
        waiters, maker.waiters = maker.waiters, []
        return waiters

    def let_go(self, sequence: SequenceState) -> None:
        """Unpins the parent that was computed for a sequence."""
        handle = self.held.pop(sequence, None)
        if handle is not None:
            self._prefix_cache.unpin(handle)

    def cancel(self, sequences: Set[SequenceState]) -> None:
        """Drops sequences that wait or pin; what is being computed for them goes on."""
        for maker in set(self.making.values()):
            maker.waiters = [waiter for waiter in maker.waiters if waiter not in sequences]
        for sequence in sequences:
            self.let_go(sequence)
