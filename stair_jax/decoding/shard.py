"""The host's side of one shard: its pages, its slots, and which sequence goes on next.

A round is what the engine does between two looks at results. It is planned in three parts, `begin`,
`take_chunks` and `admit`; then its programs are dispatched in the order copies, prefills, decode,
and its results are read after the next round has been dispatched. As the devices run programs in
that order, a page may change hands as soon as no program that is dispatched later needs what it
holds.

Which slots the round before leaves free is not known yet when a round is planned. So sequences that
are ready line up, and the device gives them the slots that it finds at rest. The host finds out
when it has read that round: `settle` gives out the same slots in the same order.

Nothing waits for itself: the jobs have an order, a job takes pages only from those that come after
it, and what comes after it begins nothing new while it finds none. So the first one always ends.
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

# The order of jobs, without a call of Python for each comparison.
_BY_ORDER = attrgetter("order")


@dataclass(frozen=True)
class Sizes:
    """Of one shard.

    Attributes:
        num_slots: sequences that decode side by side.
        num_pages: of the pool, page 0 too.
        page_size: tokens of a page.
        table_width: pages of a sequence at most.
        chunk: tokens of one row of a prefill.
        num_steps: of decoding, in a round.
        lookahead: sequences that are prefilled before a slot is free for them, and may line up.
        max_copies: pages that are copied in one round.
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
    """One row of a prefill: tokens of a job from a position on."""

    job: Job
    start: int
    tokens: tuple[int, ...]


class Decoding(NamedTuple):
    """A job in a slot, in one decode call; its results count if it is still in the same run."""

    slot: int
    job: Job
    run: int


class Shard:
    """Schedules the sequences of one shard.

    Attributes:
        table: [num_slots, table_width] int32, the pages of the slots.
        copies: (source, target) pages that are copied in this round.
        line: jobs that take slots over which turn out to be free when this round's call begins.
    """

    def __init__(self, sizes: Sizes, kept: Container[Handle], stats: EngineStats):
        """An idle shard.

        Args:
            sizes: of it.
            kept: the handles that have not been released.
            stats: counts, which it raises.
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
        self._making: dict[Handle, Job] = {}
        self._made: list[Job] = []
        # Waiting jobs whose parent was made for them, and is held until they are opened.
        self._held: dict[Job, Handle] = {}

    @property
    def load(self) -> int:
        """Sequences that wait or run."""
        running = self.sizes.num_slots - len(self._free)
        opened = [*self._prefilling, *self._made, *self._ready]
        waiters = sum(len(job.waiters) for job in opened)
        return len(self._waiting) + len(opened) + running + waiters

    @property
    def free_tokens(self) -> int:
        """Tokens that fit into pages which are free, or could be."""
        return (self.pool.num_free + self.prefixes.evictable_pages) * self.sizes.page_size

    def submit(self, job: Job) -> None:
        """Takes a request over."""
        self.prefixes.touch(job.parent)
        heapq.heappush(self._waiting, job)

    def begin(self) -> None:
        """Begins a round: room for what runs, and what can be started."""
        self.copies = []
        self._finish_making()
        self._grow()
        self._start()

    @property
    def num_chunks(self) -> int:
        """Rows of prefills that would take all that is to be prefilled."""
        return sum(-(-job.to_prefill // self.sizes.chunk) for job in self._prefilling)

    def take_chunks(self, num_rows: int) -> list[Chunk]:
        """The rows of the next prefill of this round, those of the first jobs first."""
        chunks: list[Chunk] = []
        while self._prefilling and len(chunks) < num_rows:
            job = self._prefilling[0]
            end = min(job.cached + self.sizes.chunk, len(job.tokens) - 1)
            chunks.append(Chunk(job, job.cached, job.tokens[job.cached : end]))
            self._stats.prefilled += end - job.cached
            job.cached = end
            if not job.to_prefill:
                self._prefilling.pop(0)
                if job.request is None:
                    self._made.append(job)
                else:
                    insort(self._ready, job)
        return chunks

    def admit(self) -> list[Decoding]:
        """Puts ready jobs into free slots, and lines others up; what is sure to decode now."""
        while self._ready and self._free:
            job, slot = self._ready[0], self._free[-1]
            if not self._make_room(job, may_put_back=self._is_idle):
                break
            assert job.request is not None
            put_request(self._changes, slot, job.request, len(job.tokens), job.limit)
            self._occupy(slot, job)
        self.line = []
        for job in self._ready[: self.sizes.lookahead]:
            if self._free or not self._make_room(job, may_put_back=False):
                break
            self.line.append(job)
        decoding = []
        for slot, occupant in enumerate(self._slots):
            if occupant is not None and occupant.may_go_on(self.sizes.num_steps):
                decoding.append(Decoding(slot, occupant, occupant.run))
                occupant.num_calls += 1
        return decoding

    def settle(self, line: list[Job]) -> list[Decoding]:
        """What decodes besides in a round with that line, once the round before has been read."""
        taken = []
        for slot, job in zip(sorted(self._free), line, strict=False):
            self._occupy(slot, job)
            taken.append(Decoding(slot, job, job.run))
            job.num_calls += 1
        return taken

    def packed_line(self) -> tuple[np.ndarray, np.ndarray]:
        """The line as the device takes it: [lookahead, WIDTH], and [lookahead, W] pages."""
        count = self.sizes.lookahead
        rows = np.zeros((count, WIDTH), np.int32)
        table = np.zeros((count, self.sizes.table_width), np.int32)
        for place, job in enumerate(self.line):
            assert job.request is not None
            put_request(rows, place, job.request, len(job.tokens), job.limit)
            table[place, : len(job.pages)] = job.pages
        return rows, table

    def take_changes(self) -> np.ndarray:
        """[num_slots, WIDTH] int32: what is to be put into slots since the last call of this."""
        changes, self._changes = self._changes, np.zeros_like(self._changes)
        return changes

    def forget(self) -> None:
        """Gives up the keys and values of all handles; nothing may wait or run."""
        self._finish_making()
        self.prefixes.clear()

    def leave(self, job: Job) -> None:
        """Takes a finished job out of its slot; the device has put it at rest itself."""
        assert job.slot is not None
        self._slots[job.slot] = None
        self._free.append(job.slot)
        self.table[job.slot] = 0
        job.slot = None
        job.done = True

    def retire(self, job: Job, handle: Handle | None) -> None:
        """Gives a finished job's pages to the handle of its whole sequence, or gives them up."""
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
        """Gives each running sequence the pages that this round may need, the first ones first."""
        for job in sorted(self._running(), key=_BY_ORDER):
            if job.slot is None:
                continue  # It was put back for an earlier one.
            had = job.pages
            if not self._make_room(job, may_put_back=True):
                self._put_back(job)
            elif job.pages is not had:
                self._write_table(job)

    def _make_room(self, job: Job, may_put_back: bool) -> bool:
        """Takes the pages that one more round of a job may need."""
        tokens = job.tokens_after_call(self.sizes.num_steps)
        missing = -(-tokens // self.sizes.page_size) - len(job.pages)
        if missing <= 0:
            return True
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
        """The last of the jobs that hold pages, if it comes after this one."""
        started = [*self._running(), *self._ready, *self._prefilling, *self._made, *self._held]
        last = max(started, default=job)
        return last if job < last else None

    def _put_back(self, job: Job) -> None:
        """Gives up what a job has, so that it is done again from its beginning."""
        if job in self._held:
            self._let_go(job)
            return
        if job.slot is not None:
            self._slots[job.slot] = None
            self._free.append(job.slot)
            self.table[job.slot] = 0
            put_at_rest(self._changes, job.slot)
        else:
            queues = (self._ready, self._prefilling, self._made)
            next(queue for queue in queues if job in queue).remove(job)
        self.pool.drop(job.pages)
        job.reset()
        if job.request is None:
            self._stop_making(job)
        else:
            self._stats.preempted += 1
            heapq.heappush(self._waiting, job)

    def _start(self) -> None:
        """Starts waiting jobs in their order, as long as there are slots and pages."""
        opened = [*self._ready, *self._prefilling]
        room = len(self._free) + self.sizes.lookahead
        # What waits for a handle keeps its place, or a later one would take the pages of both.
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
                return  # No page is left: what comes later must not go first.

    def _clear_for(self, job: Job) -> bool:
        """Puts a later job back, if none is running that will make room by itself."""
        last = self._last_after(job)
        if last is None or not self._is_idle:
            return False
        self._put_back(last)
        return True

    def _needs_making(self, handle: Handle | None) -> bool:
        """Whether a handle has keys and values that are not there, and are worth keeping."""
        if handle is None or len(handle.tokens) == 1 or handle not in self._kept:
            return False
        return handle not in self.prefixes

    def _maker(self, job: Job) -> Job | None:
        """The job that this one has to wait for; it is opened now if need be and pages allow."""
        if not self._needs_making(job.parent):
            return None
        self._let_go(job)
        missing = []
        ancestor = job.parent
        while ancestor is not None and ancestor not in self.prefixes:
            if ancestor in self._making:
                return self._making[ancestor]
            missing.append(ancestor)
            ancestor = ancestor.parent
        handle = missing[0]
        maker = Job(handle.tokens, job.order, handle.parent, handle=handle)
        if not self._open(maker):
            return None
        for ancestor in missing:
            self._making[ancestor] = maker
        return maker

    def _open(self, job: Job) -> bool:
        """Gives a job what is there of its sequence, and pages for the rest of its prompt."""
        size = self.sizes.page_size
        found, shared, cached = self.prefixes.find(job.parent)
        full = cached // size
        missing = -(-(len(job.tokens) - 1) // size) - full
        self.pool.share(shared)
        taken = self.pool.take(missing) if self._evict_for(job, found, missing) else None
        if taken is None:
            self.pool.drop(shared)
            return False
        if cached % size:
            self.copies.append((int(shared[full]), int(taken[0])))
            # It may go to another job at once: copies are read before anything is written.
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
        """Makes so many pages free, and gives the handle that the job needs up last of all."""
        if handle is not None:
            self.prefixes.pin(handle)
        is_free = self.prefixes.evict(missing)
        if handle is not None:
            self.prefixes.unpin(handle)
        # Others that hold pages will make room; where there are none, nothing else will.
        if is_free or not self._is_alone(job):
            return is_free
        self._let_go(job)
        return self.prefixes.evict(missing)

    def _is_alone(self, job: Job) -> bool:
        """Whether no other job holds pages."""
        opened = self._ready or self._prefilling or self._made
        return self._is_idle and not opened and self._held.keys() <= {job}

    def _let_go(self, job: Job) -> None:
        """Its parent may be evicted from now on."""
        handle = self._held.pop(job, None)
        if handle is not None:
            self.prefixes.unpin(handle)

    def _finish_making(self) -> None:
        """What was prefilled in the last round can be shared from now on."""
        for job in self._made:
            assert job.handle is not None
            self.prefixes.adopt(job.handle, job.pages)
            self.pool.drop(job.pages)
            for waiter in job.waiters:
                found = self.prefixes.find(waiter.parent)[0]
                if found is not None:
                    self.prefixes.pin(found)
                    self._held[waiter] = found
            self._stop_making(job)
        self._made = []

    def _stop_making(self, job: Job) -> None:
        for handle in [handle for handle, maker in self._making.items() if maker is job]:
            del self._making[handle]
        for waiter in job.waiters:
            heapq.heappush(self._waiting, waiter)
        job.waiters = []

    def _occupy(self, slot: int, job: Job) -> None:
        """A ready job has a free slot from now on."""
        self._ready.remove(job)
        self._free.remove(slot)
        self._slots[slot] = job
        job.slot = slot
        self._write_table(job)

    def _write_table(self, job: Job) -> None:
        assert job.slot is not None
        self.table[job.slot, : len(job.pages)] = job.pages
