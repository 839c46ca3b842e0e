"""The scheduler of continuous batching, for one shard: its pages, its slots and its queues.

A shard is the part of the slots and of the KV cache that one data-parallel part of the mesh holds.
The engine plans a round for each shard in three calls: `begin`, `take_chunks` and `admit`. It then
dispatches the device programs of the round in the order page copies, prefills, decode, and reads
the results only after the next round has been dispatched. The devices run programs in dispatch
order, so a page can be given to another sequence as soon as no program that is still to be
dispatched needs its contents.

When a round is planned, the host does not know yet which sequences the previous round finishes.
Ready sequences are therefore queued in `line`, and the decode program itself assigns them to the
slots that it finds idle. Once the host has read the previous round, `settle` repeats the same
assignment on its side.

Life of a sequence: waiting -> prefilling -> ready -> in a slot -> done. A preempted sequence goes
back to waiting and is computed again from the start.

Scheduling cannot deadlock: sequences are totally ordered (priority, then arrival), a sequence takes
pages only from sequences that come later in the order, and no later sequence starts while an
earlier one cannot get its pages. The first sequence can therefore always run to completion.
"""

import heapq
from bisect import insort
from collections.abc import Container, Set

import numpy as np

from stair_jax.decoding.cache.page_pool import PagePool
from stair_jax.decoding.cache.prefix_cache import PrefixCache
from stair_jax.decoding.chunked_prefill import PrefillChunk
from stair_jax.decoding.engine_config import ShardSizes
from stair_jax.decoding.prefix_makers import PrefixMakers
from stair_jax.decoding.requests import EngineStats, Handle
from stair_jax.decoding.sequence import SequenceState
from stair_jax.decoding.slot_table import DecodingSlot, SlotTable


class Scheduler:
    """Schedules the sequences of one shard.

    Attributes:
        sizes: the sizes of the shard.
        slots: which sequence occupies which slot, and the arrays that tell the device so.
        copies: (source, target) page ids to copy in this round.
        line: ready sequences that this round's decode call assigns to slots that have become idle,
            in order.
        pool: reference counts of the pages.
        prefix_cache: the prefix cache.
        makers: the sequences that compute prefixes for others.
    """

    def __init__(self, sizes: ShardSizes, kept: Container[Handle], stats: EngineStats):
        """Creates an idle shard.

        Args:
            sizes: the sizes of the shard.
            kept: the handles that have not been released, maintained by the engine.
            stats: counters, shared with the engine and updated in place.
        """
        self.sizes = sizes
        self.slots = SlotTable(sizes.num_slots, sizes.table_width)
        self.copies: list[tuple[int, int]] = []
        self.line: list[SequenceState] = []
        self._stats = stats
        self.pool = PagePool(sizes.num_pages)
        self.prefix_cache = PrefixCache(self.pool, sizes.page_size)
        self.makers = PrefixMakers(self.pool, self.prefix_cache, kept)
        self._waiting: list[SequenceState] = []
        self._prefilling: list[SequenceState] = []
        self._ready: list[SequenceState] = []

    @property
    def opened(self) -> list[SequenceState]:
        """The sequences that hold pages but no slot yet, makers included."""
        return [*self._ready, *self._prefilling, *self.makers.made]

    @property
    def load(self) -> int:
        """Number of sequences that wait or run."""
        running = self.sizes.num_slots - self.slots.num_free
        opened = self.opened
        waiters = sum(len(sequence.waiters) for sequence in opened)
        return len(self._waiting) + len(opened) + running + waiters

    @property
    def free_tokens(self) -> int:
        """Number of tokens that fit into pages that are free or can be evicted."""
        return (self.pool.num_free + self.prefix_cache.evictable_pages) * self.sizes.page_size

    def submit(self, sequence: SequenceState) -> None:
        """Queues a sequence."""
        self.prefix_cache.touch(sequence.parent)
        heapq.heappush(self._waiting, sequence)

    def begin(self) -> None:
        """Begins a round: reserves pages for running sequences, then starts waiting ones."""
        self.copies = []
        self._publish()
        # Running sequences reserve first: `_start` opens sequences with the pages that are left.
        self._grow()
        self._start()

    @property
    def num_chunks(self) -> int:
        """Number of prefill rows that would hold all tokens still to be prefilled."""
        return sum(-(-sequence.to_prefill // self.sizes.chunk) for sequence in self._prefilling)

    def take_chunks(self, num_rows: int) -> list[PrefillChunk]:
        """Takes the next rows to prefill in this round, in sequence order.

        Args:
            num_rows: maximum number of rows.

        Returns:
            At most `num_rows` chunks. Several of them may be consecutive chunks of one sequence:
            attention writes all keys and values of a call before any row reads them.
        """
        chunks: list[PrefillChunk] = []
        while self._prefilling and len(chunks) < num_rows:
            sequence = self._prefilling[0]
            # Without the last token: it goes through the decode program, which samples its
            # successor.
            end = min(sequence.cached + self.sizes.chunk, len(sequence.tokens) - 1)
            chunks.append(
                PrefillChunk(sequence, sequence.cached, sequence.tokens[sequence.cached : end])
            )
            self._stats.prefilled += end - sequence.cached
            # True once the call has run, and nothing that is dispatched later can run before it.
            sequence.cached = end
            if not sequence.to_prefill:
                self._prefilling.pop(0)
                if sequence.request is None:
                    self.makers.made.append(sequence)
                else:
                    insort(self._ready, sequence)
        return chunks

    def admit(self) -> list[DecodingSlot]:
        """Assigns ready sequences to free slots and queues others in `line`.

        Returns:
            The sequences that are certain to occupy a slot in this round's decode call.
        """
        while self._ready and self.slots.num_free:
            sequence = self._ready[0]
            # Slots in use will release their pages in time: preempt only if there are none.
            if not self._make_room(sequence, may_preempt=self.slots.is_idle):
                break
            self._ready.remove(sequence)
            self.slots.start(sequence)
        self.line = []
        for sequence in self._ready[: self.sizes.lookahead]:
            # A slot that is still free here means that pages, not slots, ran out: nothing to line
            # up.
            if self.slots.num_free or not self._make_room(sequence, may_preempt=False):
                break
            self.line.append(sequence)
        decoding = []
        for slot, occupant in enumerate(self.slots.occupants):
            # A sequence that has certainly reached its limit, in calls not read yet, is left out.
            # One that may have met a stop token cannot be known and stays in, and so does one that
            # a call may have left unsampled.
            if occupant is not None and (
                occupant.may_go_on(self.sizes.num_steps)
                or (self.sizes.may_stall and occupant.may_stall)
            ):
                decoding.append(DecodingSlot(slot, occupant, occupant.run))
                occupant.num_calls += 1
        return decoding

    def settle(self, line: list[SequenceState]) -> list[DecodingSlot]:
        """Assigns the sequences of `line` to slots as the device did, once it has read the round
        before.

        Args:
            line: `Scheduler.line` of the round, as it was when the round was dispatched.

        Returns:
            The sequences that decode in that round in addition to those that `admit` returned.
        """
        taken = self.slots.take_over(line)
        for _, sequence, _ in taken:
            # The rest of the line stays ready and is lined up again.
            self._ready.remove(sequence)
            sequence.num_calls += 1
        return taken

    def cancel(self, sequences: Set[SequenceState]) -> None:
        """Drops unfinished sequences of requests.

        Called between rounds: what is in flight is settled, so that none is in a line. A prefix
        that is being computed for one of them is computed to its end.

        Args:
            sequences: sequences that were submitted and are not done.
        """
        self._waiting = [waiting for waiting in self._waiting if waiting not in sequences]
        heapq.heapify(self._waiting)
        self.makers.cancel(sequences)
        for queue in (self._ready, self._prefilling):
            queue[:] = [sequence for sequence in queue if sequence not in sequences]
        for sequence in sequences:
            if sequence.slot is not None:
                self.slots.stop(sequence)
            # The programs in flight may still write to these pages; none that follows will.
            self.pool.drop(sequence.pages)
            sequence.done = True

    def forget(self) -> None:
        """Drops the keys and values of all handles, e.g. before a change of weights.

        No sequence may wait or run.

        Raises:
            ValueError: an entry of the prefix cache is still pinned.
        """
        self._publish()
        self.prefix_cache.clear()

    def leave(self, sequence: SequenceState) -> None:
        """Frees the slot of a finished sequence."""
        self.slots.leave(sequence)
        sequence.done = True

    def retire(self, sequence: SequenceState, handle: Handle | None) -> None:
        """Moves a finished sequence's pages into the prefix cache, or releases them.

        Args:
            sequence: the finished sequence.
            handle: the handle of the whole sequence if it is kept, else None.
        """
        # Maybe fewer than the sequence has: pages were reserved for a full call, and the last token
        # has no keys and values yet.
        count = self.prefix_cache.num_pages(len(handle.tokens)) if handle else 0
        self.pool.drop(sequence.pages[count:])
        if handle:
            self.prefix_cache.insert(handle, sequence.pages[:count])

    def _grow(self) -> None:
        """Reserves the pages that each running sequence may fill in this round, in order."""
        steps, size = self.sizes.num_steps, self.sizes.page_size
        growing = [
            (sequence, missing)
            for sequence in self.slots.running()
            if (missing := sequence.missing_pages(steps, size)) > 0
        ]
        # A key: `SequenceState.__lt__` would cost a call for each comparison.
        growing.sort(key=lambda grown: grown[0].order)
        if self._grow_together(growing):
            return
        for sequence, _ in growing:
            if sequence.slot is None:
                continue  # preempted for an earlier sequence in this loop
            if self._make_room(sequence, may_preempt=True):
                self.slots.write_pages(sequence)
            else:
                self._preempt(sequence)

    def _grow_together(self, growing: list[tuple[SequenceState, int]]) -> bool:
        """Reserves pages for sequences in slots as `_make_room` would for one after another.

        Args:
            growing: each with the number of pages that it lacks.

        Returns:
            Whether so many pages were free; if not, nothing has changed.
        """
        taken = self.pool.take(sum(count for _, count in growing))
        if taken is None:
            return False
        start = 0
        for sequence, count in growing:
            own = taken[start : start + count]
            start += count
            self.slots.append_pages(sequence, own)
            sequence.pages = np.concatenate([sequence.pages, own])
        return True

    def _make_room(self, sequence: SequenceState, may_preempt: bool) -> bool:
        """Reserves the pages that a sequence may fill in one more decode call.

        Args:
            sequence: the sequence; its `pages` grow.
            may_preempt: whether later sequences may be preempted for it.

        Returns:
            Whether the sequence has the pages.
        """
        missing = sequence.missing_pages(self.sizes.num_steps, self.sizes.page_size)
        if missing <= 0:
            return True
        # Cached prefixes go before running work: they cost a prefill to restore, and only if they
        # are used again.
        while not self.prefix_cache.evict(missing):
            last = self._last_after(sequence) if may_preempt else None
            if last is None:
                return False
            self._preempt(last)
        taken = self.pool.take(missing)
        assert taken is not None
        sequence.pages = np.concatenate([sequence.pages, taken])
        return True

    def _last_after(self, sequence: SequenceState) -> SequenceState | None:
        """The last sequence in the order that holds pages or pins, if it comes after this one."""
        started = [*self.slots.running(), *self.opened, *self.makers.held]
        last = max(started, default=sequence)
        return last if sequence < last else None

    def _preempt(self, sequence: SequenceState) -> None:
        """Preempts a sequence: releases its pages, so that it is computed again from the start.

        A waiting sequence that only pins its parent loses the pin.
        """
        if sequence in self.makers.held:
            self.makers.let_go(sequence)
            return
        if sequence.slot is not None:
            self.slots.stop(sequence)
        else:
            queues = (self._ready, self._prefilling, self.makers.made)
            next(queue for queue in queues if sequence in queue).remove(sequence)
        self.pool.drop(sequence.pages)
        sequence.reset()
        # A maker is discarded: its waiters open a new one when it is their turn.
        if sequence.request is None:
            self._queue(self.makers.stop(sequence))
        else:
            self._stats.preempted += 1
            self._queue([sequence])

    def _start(self) -> None:
        """Opens waiting sequences in order while there are places, pages and page copies left."""
        room = self.slots.num_free + self.sizes.lookahead
        # A maker counts as one place for each sequence that waits for it. Otherwise later sequences
        # would take those places, and with them the pages of both.
        room -= sum(1 if sequence.request else len(sequence.waiters) for sequence in self.opened)
        while self._waiting and room > 0 and len(self.copies) < self.sizes.max_copies:
            sequence = self._waiting[0]
            maker = self._maker(sequence)
            if maker is not None:
                heapq.heappop(self._waiting)
                maker.waiters.append(sequence)
                room -= 1
            elif not self.makers.is_needed(sequence.parent) and self._open(sequence):
                heapq.heappop(self._waiting)
                room -= 1
            elif not self._clear_for(sequence):
                return  # no pages left: a later sequence must not overtake this one

    def _clear_for(self, sequence: SequenceState) -> bool:
        """Preempts the last sequence behind this one, if no running slot will free pages by itself.

        Returns:
            Whether a sequence was preempted, so that it is worth trying again.
        """
        last = self._last_after(sequence)
        if last is None or not self.slots.is_idle:
            return False
        self._preempt(last)
        return True

    def _maker(self, sequence: SequenceState) -> SequenceState | None:
        """The sequence that computes its parent, opened now if there is none and pages allow.

        Returns:
            None if the parent needs no computation, or if there are no pages for it.
        """
        if not self.makers.is_needed(sequence.parent):
            return None
        self.makers.let_go(sequence)
        maker, missing = self.makers.find(sequence.parent)
        if maker is not None:
            return maker
        handle = missing[0]
        # The order of the sequence that needs it: whoever may preempt one may preempt the other.
        maker = SequenceState(
            handle.tokens, sequence.order, handle.parent, handle.adapter, handle=handle
        )
        if not self._open(maker):
            return None
        self.makers.add(maker, missing)
        return maker

    def _open(self, sequence: SequenceState) -> bool:
        """Starts a sequence: shares the cached part of its prompt and takes pages for the rest.

        Returns:
            Whether there were enough pages; if not, nothing has changed but evictions and pins.
        """
        size = self.sizes.page_size
        found, shared, cached = self.prefix_cache.find(sequence.parent)
        full = cached // size
        missing = -(-(len(sequence.tokens) - 1) // size) - full
        # Referenced before anything is evicted, so that the pages survive if their entry does not.
        self.pool.share(shared)
        taken = self.pool.take(missing) if self._evict_for(sequence, found, missing) else None
        if taken is None:
            self.pool.drop(shared)
            return False
        # The last cached page is partial. Entries of the cache are never written, so the sequence
        # continues in a copy of it.
        if cached % size:
            self.copies.append((int(shared[full]), int(taken[0])))
            # The source may be reused at once, even as the target of another copy of this round:
            # the copy program reads all of its sources before it writes.
            self.pool.drop(shared[full:])
        self.makers.let_go(sequence)
        sequence.pages = np.concatenate([shared[:full], taken])
        sequence.cached = cached
        self._stats.reused += cached
        self.prefix_cache.touch(sequence.parent)
        if sequence.to_prefill:
            insort(self._prefilling, sequence)
        elif sequence.request is None:
            self.makers.made.append(sequence)
        else:
            insort(self._ready, sequence)
        return True

    def _evict_for(self, sequence: SequenceState, handle: Handle | None, missing: int) -> bool:
        """Evicts until enough pages are free; the handle that the sequence continues goes last of
        all.

        Args:
            sequence: the sequence that is being opened.
            handle: the nearest cached ancestor of the sequence, or None.
            missing: number of pages that have to be free.
        """
        if missing <= self.pool.num_free:
            return True
        if handle is not None:
            self.prefix_cache.pin(handle)
        is_free = self.prefix_cache.evict(missing)
        if handle is not None:
            self.prefix_cache.unpin(handle)
        # Other sequences that hold pages will release them. If there are none, no pages will ever
        # come free except those of the sequence's own prefix.
        if is_free or not self._is_alone(sequence):
            return is_free
        self.makers.let_go(sequence)
        return self.prefix_cache.evict(missing)

    def _is_alone(self, sequence: SequenceState) -> bool:
        """Whether no other sequence holds pages or pins."""
        return self.slots.is_idle and not self.opened and self.makers.held.keys() <= {sequence}

    def _publish(self) -> None:
        """Shares the prefixes that were prefilled in the previous round, and queues the waiters."""
        self._queue(self.makers.publish())

    def _queue(self, sequences: list[SequenceState]) -> None:
        for sequence in sequences:
            heapq.heappush(self._waiting, sequence)
