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

Life of a job: waiting -> prefilling -> ready -> in a slot -> done. A preempted job goes back to
waiting and is computed again from the start.

Scheduling cannot deadlock: jobs are totally ordered (priority, then arrival), a job takes pages
only from jobs that come later in the order, and no later job starts while an earlier one cannot get
its pages. The first job can therefore always run to completion.
"""

import heapq
from bisect import insort
from collections.abc import Container, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from stair_jax.decoding.jobs import Job
from stair_jax.decoding.pages import PagePool
from stair_jax.decoding.prefixes import Prefixes
from stair_jax.decoding.requests import EngineStats, Handle
from stair_jax.decoding.rows import WIDTH, put_at_rest, put_request

# A sort key in C: `Job.__lt__` would cost a Python call for each comparison.
_BY_ORDER = attrgetter("order")


@dataclass(frozen=True)
class Sizes:
    """Sizes of one shard.

    Attributes:
        num_slots: sequences that decode side by side (batch lanes).
        num_pages: pages in the pool, including the reserved page 0.
        page_size: tokens per page.
        table_width: maximum number of pages per sequence.
        chunk: tokens per row of a prefill.
        num_steps: decode steps per round.
        lookahead: sequences that may be prefilled before a slot is free for them; also the maximum
            length of `Shard.line`.
        max_copies: maximum number of page copies per round.
    """

    num_slots: int
    num_pages: int
    page_size: int
    table_width: int
    chunk: int
    num_steps: int
    lookahead: int
    max_copies: int


@dataclass(frozen=True)
class Chunk:
    """One row of a prefill call: consecutive tokens of a job.

    Attributes:
        job: the sequence.
        start: position of the first token in the sequence.
        tokens: at most `Sizes.chunk` token ids.
    """

    job: Job
    start: int
    tokens: tuple[int, ...]


class Decoding(NamedTuple):
    """A job that occupies a slot during one decode call.

    Attributes:
        slot: index of the slot within the shard.
        job: the sequence.
        run: `Job.run` when the call was dispatched. If the job has been preempted since then, the
            numbers differ and the results of the call are discarded.
    """

    slot: int
    job: Job
    run: int


class Shard:
    """Schedules the sequences of one shard.

    Attributes:
        sizes: the sizes of the shard.
        table: [num_slots, table_width] int32, page ids of the sequence in each slot.
        copies: (source, target) page ids to copy in this round.
        line: ready jobs that this round's decode call assigns to slots that have become idle, in
            order.
        pool: reference counts of the pages.
        prefixes: the prefix cache.
    """

    def __init__(self, sizes: Sizes, kept: Container[Handle], stats: EngineStats):
        """Creates an idle shard.

        Args:
            sizes: the sizes of the shard.
            kept: the handles that have not been released, maintained by the engine.
            stats: counters, shared with the engine and updated in place.
        """
        self.sizes = sizes
        self._changes = np.zeros((sizes.num_slots, WIDTH), np.int32)
        self.table = np.zeros((sizes.num_slots, sizes.table_width), np.int32)
        self.copies: list[tuple[int, int]] = []
        self.line: list[Job] = []
        self._kept = kept
        self._stats = stats
        self.pool = PagePool(sizes.num_pages)
        self.prefixes = Prefixes(self.pool, sizes.page_size)
        self._waiting: list[Job] = []
        self._prefilling: list[Job] = []
        self._ready: list[Job] = []
        self._slots: list[Job | None] = [None] * sizes.num_slots
        self._free = list(range(sizes.num_slots - 1, -1, -1))
        # Handles that are being computed, with the job that prefills them (a maker). One job may
        # stand under several handles, as it also computes the ancestors that are missing.
        self._making: dict[Handle, Job] = {}
        # Makers whose last chunk was taken in this round: their prefixes are shared from the next
        # one on.
        self._made: list[Job] = []
        # Waiting jobs whose parent was computed for them: it stays pinned until they are opened.
        self._held: dict[Job, Handle] = {}

    @property
    def load(self) -> int:
        """Number of sequences that wait or run."""
        running = self.sizes.num_slots - len(self._free)
        opened = [*self._prefilling, *self._made, *self._ready]
        waiters = sum(len(job.waiters) for job in opened)
        return len(self._waiting) + len(opened) + running + waiters

    @property
    def free_tokens(self) -> int:
        """Number of tokens that fit into pages that are free or can be evicted."""
        return (self.pool.num_free + self.prefixes.evictable_pages) * self.sizes.page_size

    def submit(self, job: Job) -> None:
        """Queues a job."""
        self.prefixes.touch(job.parent)
        heapq.heappush(self._waiting, job)

    def begin(self) -> None:
        """Begins a round: reserves pages for running sequences, then starts waiting ones."""
        self.copies = []
        self._finish_making()
        # Running sequences reserve first: `_start` opens jobs with the pages that are left.
        self._grow()
        self._start()

    @property
    def num_chunks(self) -> int:
        """Number of prefill rows that would hold all tokens still to be prefilled."""
        return sum(-(-job.to_prefill // self.sizes.chunk) for job in self._prefilling)

    def take_chunks(self, num_rows: int) -> list[Chunk]:
        """Takes the next rows to prefill in this round, in job order.

        Args:
            num_rows: maximum number of rows.

        Returns:
            At most `num_rows` chunks. Several of them may be consecutive chunks of one job:
            attention writes all keys and values of a call before any row reads them.
        """
        chunks: list[Chunk] = []
        while self._prefilling and len(chunks) < num_rows:
            job = self._prefilling[0]
            # Without the last token: it goes through the decode program, which samples its
            # successor.
            end = min(job.cached + self.sizes.chunk, len(job.tokens) - 1)
            chunks.append(Chunk(job, job.cached, job.tokens[job.cached : end]))
            self._stats.prefilled += end - job.cached
            # True once the call has run, and nothing that is dispatched later can run before it.
            job.cached = end
            if not job.to_prefill:
                self._prefilling.pop(0)
                if job.request is None:
                    self._made.append(job)
                else:
                    insort(self._ready, job)
        return chunks

    def admit(self) -> list[Decoding]:
        """Assigns ready jobs to free slots and queues others in `line`.

        Returns:
            The jobs that are certain to occupy a slot in this round's decode call.
        """
        while self._ready and self._free:
            job, slot = self._ready[0], self._free[-1]
            # Slots in use will release their pages in time: preempt only if there are none.
            if not self._make_room(job, may_put_back=self._is_idle):
                break
            assert job.request is not None
            put_request(self._changes, slot, job.request, len(job.tokens), job.limit)
            self._occupy(slot, job)
        self.line = []
        for job in self._ready[: self.sizes.lookahead]:
            # A slot that is still free here means that pages, not slots, ran out: nothing to line
            # up.
            if self._free or not self._make_room(job, may_put_back=False):
                break
            self.line.append(job)
        decoding = []
        for slot, occupant in enumerate(self._slots):
            # A sequence that has certainly reached its limit, in calls not read yet, is left out.
            # One that may have met a stop token cannot be known and stays in.
            if occupant is not None and occupant.may_go_on(self.sizes.num_steps):
                decoding.append(Decoding(slot, occupant, occupant.run))
                occupant.num_calls += 1
        return decoding

    def settle(self, line: list[Job]) -> list[Decoding]:
        """Assigns the jobs of `line` to slots as the device did, after the round before was read.

        Args:
            line: `Shard.line` of the round, as it was when the round was dispatched.

        Returns:
            The jobs that decode in that round in addition to those that `admit` returned.
        """
        taken = []
        # The device numbers idle slots in ascending order (`programs._taken_over`). The line may be
        # longer than the number of idle slots: the rest stays ready and is lined up again.
        for slot, job in zip(sorted(self._free), line, strict=False):
            self._occupy(slot, job)
            taken.append(Decoding(slot, job, job.run))
            job.num_calls += 1
        return taken

    def packed_line(self) -> tuple[np.ndarray, np.ndarray]:
        """The line as the decode program takes it.

        Returns:
            [lookahead, WIDTH] int32 rows (`decoding/rows.py`), and [lookahead, table_width] int32
            page ids. Unused rows are zero.
        """
        count = self.sizes.lookahead
        rows = np.zeros((count, WIDTH), np.int32)
        table = np.zeros((count, self.sizes.table_width), np.int32)
        for place, job in enumerate(self.line):
            assert job.request is not None
            put_request(rows, place, job.request, len(job.tokens), job.limit)
            table[place, : len(job.pages)] = job.pages
        return rows, table

    def take_changes(self) -> np.ndarray:
        """Returns and clears the slot updates that the device has not received yet.

        Returns:
            [num_slots, WIDTH] int32 (`decoding/rows.py`).
        """
        changes, self._changes = self._changes, np.zeros_like(self._changes)
        return changes

    def forget(self) -> None:
        """Drops the keys and values of all handles, e.g. before a change of weights.

        No sequence may wait or run.

        Raises:
            ValueError: an entry of the prefix cache is still pinned.
        """
        self._finish_making()
        self.prefixes.clear()

    def leave(self, job: Job) -> None:
        """Frees the slot of a finished job; the device has set the slot idle itself."""
        assert job.slot is not None
        self._slots[job.slot] = None
        self._free.append(job.slot)
        self.table[job.slot] = 0
        job.slot = None
        job.done = True

    def retire(self, job: Job, handle: Handle | None) -> None:
        """Moves a finished job's pages into the prefix cache, or releases them.

        Args:
            job: the finished job.
            handle: the handle of the whole sequence if it is kept, else None.
        """
        # Maybe fewer than the job has: pages were reserved for a full call, and the last token has
        # no keys and values yet.
        count = self.prefixes.num_pages(len(handle.tokens)) if handle else 0
        self.pool.drop(job.pages[count:])
        if handle:
            self.prefixes.insert(handle, job.pages[:count])

    @property
    def _is_idle(self) -> bool:
        """Whether no slot is in use."""
        return len(self._free) == self.sizes.num_slots

    def _running(self) -> Iterator[Job]:
        return (job for job in self._slots if job is not None)

    def _grow(self) -> None:
        """Reserves the pages that each running sequence may fill in this round, in job order."""
        for job in sorted(self._running(), key=_BY_ORDER):
            if job.slot is None:
                continue  # preempted for an earlier job in this loop
            had = job.pages
            if not self._make_room(job, may_put_back=True):
                self._put_back(job)
            # `_make_room` replaces the array if and only if it adds pages.
            elif job.pages is not had:
                self._write_table(job)

    def _make_room(self, job: Job, may_put_back: bool) -> bool:
        """Reserves the pages that a job may fill in one more decode call.

        Args:
            job: the job; its `pages` grow.
            may_put_back: whether later jobs may be preempted for it.

        Returns:
            Whether the job has the pages.
        """
        tokens = job.tokens_after_call(self.sizes.num_steps)
        missing = -(-tokens // self.sizes.page_size) - len(job.pages)
        if missing <= 0:
            return True
        # Cached prefixes go before running work: they cost a prefill to restore, and only if they
        # are used again.
        while not self.prefixes.evict(missing):
            last = self._last_after(job) if may_put_back else None
            if last is None:
                return False
            self._put_back(last)
        taken = self.pool.take(missing)
        assert taken is not None
        job.pages = np.concatenate([job.pages, taken])
        return True

    def _last_after(self, job: Job) -> Job | None:
        """The last job in the order that holds pages or pins, if it comes after this one."""
        started = [*self._running(), *self._ready, *self._prefilling, *self._made, *self._held]
        last = max(started, default=job)
        return last if job < last else None

    def _put_back(self, job: Job) -> None:
        """Preempts a job: releases its pages, so that it is computed again from the start.

        A waiting job that only pins its parent loses the pin.
        """
        if job in self._held:
            self._let_go(job)
            return
        if job.slot is not None:
            self._slots[job.slot] = None
            self._free.append(job.slot)
            self.table[job.slot] = 0
            # The device goes on with the sequence until it is told otherwise, in the next decode
            # call.
            put_at_rest(self._changes, job.slot)
        else:
            queues = (self._ready, self._prefilling, self._made)
            next(queue for queue in queues if job in queue).remove(job)
        self.pool.drop(job.pages)
        job.reset()
        # A maker is discarded: its waiters open a new one when it is their turn.
        if job.request is None:
            self._stop_making(job)
        else:
            self._stats.preempted += 1
            heapq.heappush(self._waiting, job)

    def _start(self) -> None:
        """Opens waiting jobs in order while there are places, pages and page copies left."""
        opened = [*self._ready, *self._prefilling]
        room = len(self._free) + self.sizes.lookahead
        # A maker counts as one place for each job that waits for it. Otherwise later jobs would
        # take those places, and with them the pages of both.
        room -= sum(1 if job.request else len(job.waiters) for job in opened)
        while self._waiting and room > 0 and len(self.copies) < self.sizes.max_copies:
            job = self._waiting[0]
            maker = self._maker(job)
            if maker is not None:
                heapq.heappop(self._waiting)
                maker.waiters.append(job)
                room -= 1
            elif not self._needs_making(job.parent) and self._open(job):
                heapq.heappop(self._waiting)
                room -= 1
            elif not self._clear_for(job):
                return  # no pages left: a later job must not overtake this one

    def _clear_for(self, job: Job) -> bool:
        """Preempts the last job behind this one, if no running slot will free pages by itself.

        Returns:
            Whether a job was preempted, so that it is worth trying again.
        """
        last = self._last_after(job)
        if last is None or not self._is_idle:
            return False
        self._put_back(last)
        return True

    def _needs_making(self, handle: Handle | None) -> bool:
        """Whether a handle should be computed before the jobs that continue it.

        True for a handle that is not cached and has not been released. The keys and values of a
        released one would serve one job only, which prefills them as a part of its own prompt. A
        handle of one token has no keys and values to cache.
        """
        if handle is None or len(handle.tokens) == 1 or handle not in self._kept:
            return False
        return handle not in self.prefixes

    def _maker(self, job: Job) -> Job | None:
        """The job that computes this job's parent, opened now if there is none and pages allow.

        Returns:
            None if the parent needs no computation, or if there are no pages for it.
        """
        if not self._needs_making(job.parent):
            return None
        self._let_go(job)
        missing = []
        ancestor = job.parent
        # One prefill computes the parent and all ancestors that are missing, so that siblings
        # further up find theirs as well. If one of them is being computed, this job waits for that
        # first, and what remains below it is computed afterwards.
        while ancestor is not None and ancestor not in self.prefixes:
            if ancestor in self._making:
                return self._making[ancestor]
            missing.append(ancestor)
            ancestor = ancestor.parent
        handle = missing[0]
        # The order of the job that needs it: whoever may preempt one may preempt the other.
        maker = Job(handle.tokens, job.order, handle.parent, handle=handle)
        if not self._open(maker):
            return None
        for ancestor in missing:
            self._making[ancestor] = maker
        return maker

    def _open(self, job: Job) -> bool:
        """Starts a job: shares the cached part of its prompt and takes pages for the rest.

        Returns:
            Whether there were enough pages; if not, nothing has changed but evictions and pins.
        """
        size = self.sizes.page_size
        found, shared, cached = self.prefixes.find(job.parent)
        full = cached // size
        missing = -(-(len(job.tokens) - 1) // size) - full
        # Referenced before anything is evicted, so that the pages survive if their entry does not.
        self.pool.share(shared)
        taken = self.pool.take(missing) if self._evict_for(job, found, missing) else None
        if taken is None:
            self.pool.drop(shared)
            return False
        # The last cached page is partial. Entries of the cache are never written, so the job
        # continues in a copy of it.
        if cached % size:
            self.copies.append((int(shared[full]), int(taken[0])))
            # The source may be reused at once, even as the target of another copy of this round:
            # the copy program reads all of its sources before it writes.
            self.pool.drop(shared[full:])
        self._let_go(job)
        job.pages = np.concatenate([shared[:full], taken])
        job.cached = cached
        self._stats.reused += cached
        self.prefixes.touch(job.parent)
        if job.to_prefill:
            insort(self._prefilling, job)
        elif job.request is None:
            self._made.append(job)
        else:
            insort(self._ready, job)
        return True

    def _evict_for(self, job: Job, handle: Handle | None, missing: int) -> bool:
        """Evicts until enough pages are free; the handle that the job continues goes last of all.

        Args:
            job: the job that is being opened.
            handle: the nearest cached ancestor of the job, or None.
            missing: number of pages that have to be free.
        """
        if handle is not None:
            self.prefixes.pin(handle)
        is_free = self.prefixes.evict(missing)
        if handle is not None:
            self.prefixes.unpin(handle)
        # Other jobs that hold pages will release them. If there are none, no pages will ever come
        # free except those of the job's own prefix.
        if is_free or not self._is_alone(job):
            return is_free
        self._let_go(job)
        return self.prefixes.evict(missing)

    def _is_alone(self, job: Job) -> bool:
        """Whether no other job holds pages or pins."""
        opened = self._ready or self._prefilling or self._made
        return self._is_idle and not opened and self._held.keys() <= {job}

    def _let_go(self, job: Job) -> None:
        """Unpins the parent that was computed for this job."""
        handle = self._held.pop(job, None)
        if handle is not None:
            self.prefixes.unpin(handle)

    def _finish_making(self) -> None:
        """Publishes the prefixes that were prefilled in the previous round.

        Copies run before prefills within a round, so a partial page can be copied from the round
        after its prefill on.
        """
        for job in self._made:
            assert job.handle is not None
            self.prefixes.adopt(job.handle, job.pages)
            self.pool.drop(job.pages)
            for waiter in job.waiters:
                # Pinned until the waiter is opened. Otherwise the next allocation could evict it,
                # and two jobs could go on computing their prefixes in turn, for ever.
                found = self.prefixes.find(waiter.parent)[0]
                if found is not None:
                    self.prefixes.pin(found)
                    self._held[waiter] = found
            self._stop_making(job)
        self._made = []

    def _stop_making(self, job: Job) -> None:
        """Returns the jobs that wait for this one to the waiting queue."""
        for handle in [handle for handle, maker in self._making.items() if maker is job]:
            del self._making[handle]
        for waiter in job.waiters:
            heapq.heappush(self._waiting, waiter)
        job.waiters = []

    def _occupy(self, slot: int, job: Job) -> None:
        """Moves a ready job into a free slot."""
        self._ready.remove(job)
        self._free.remove(slot)
        self._slots[slot] = job
        job.slot = slot
        self._write_table(job)

    def _write_table(self, job: Job) -> None:
        assert job.slot is not None
        self.table[job.slot, : len(job.pages)] = job.pages
