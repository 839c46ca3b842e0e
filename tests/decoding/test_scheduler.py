"""The scheduler against a simulated device that checks the contents of every page.

The device is a plain array with the token that was written to each position of each page. Whatever
a prefill or a decode step attends to must be the sequence's own tokens.
"""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.decoding.engine_config import ShardSizes
from stair_jax.decoding.requests import EngineStats, Handle, Request, Sampling
from stair_jax.decoding.scheduler import Scheduler
from stair_jax.decoding.sequence import SequenceState

MAX_LENGTH = 40


def make_sizes(num_pages, page_size=4, num_slots=4, num_steps=3):
    return ShardSizes(
        num_slots=num_slots,
        num_pages=num_pages,
        page_size=page_size,
        table_width=-(-MAX_LENGTH // page_size),
        chunk=5,
        num_steps=num_steps,
        lookahead=2,
        max_copies=num_slots,
    )


class Device:
    """Runs the rounds of a shard one round behind the host, as the engine does."""

    def __init__(self, sizes, prefill_rows=3):
        self.sizes, self.prefill_rows = sizes, prefill_rows
        self.kept, self.stats = set(), EngineStats()
        self.scheduler = Scheduler(sizes, self.kept, self.stats)
        self.memory = np.full((sizes.num_pages, sizes.page_size), -1)
        self.rows = [None] * sizes.num_slots  # per slot: [token list, tokens left]
        self.rounds = deque()
        self.numbers = iter(range(10**9))
        self.finished, self.taken_over = {}, 0

    def keep(self, tokens, parent=None):
        handle = Handle((*(parent.tokens if parent else ()), *tokens), parent)
        self.kept.add(handle)
        return handle

    def release(self, handle):
        self.kept.remove(handle)
        self.scheduler.prefix_cache.remove(handle)

    def submit(self, id, tokens, limit, parent=None, keep=False, priority=0):
        sampling = Sampling(max_tokens=limit)
        request = Request(id, tokens, parent=parent, sampling=sampling, keep=keep)
        order = (priority, next(self.numbers))
        self.scheduler.submit(
            SequenceState(request.sequence, order, parent, request=request, limit=limit)
        )

    def step(self):
        scheduler = self.scheduler
        scheduler.begin()
        chunks = scheduler.take_chunks(self.prefill_rows)
        decoding = scheduler.admit()
        self._check_counts()
        read = self.memory.copy()
        targets = [target for _, target in scheduler.copies]
        assert len(set(targets)) == len(targets) <= self.sizes.max_copies
        for source, target in scheduler.copies:
            assert 0 not in (source, target)
            self.memory[target] = read[source]
        for chunk in chunks:  # all rows are written before any attends
            for index, token in enumerate(chunk.tokens, chunk.start):
                self._write(chunk.sequence.pages, index, token)
        for chunk in chunks:
            if len(chunk.sequence.pages):  # else it was preempted after the chunk was taken
                end = chunk.start + len(chunk.tokens)
                self._see(chunk.sequence.pages, chunk.sequence.tokens[:end])
        dispatched = bool(decoding or scheduler.line)
        if dispatched:
            self.rounds.append((decoding, scheduler.line, self._decode()))
            if len(self.rounds) == 1:
                self._settle()
        while len(self.rounds) > dispatched:
            self._read(*self.rounds.popleft())
            self._settle()

    def run(self, limit=3000):
        for _ in range(limit):
            if not self.scheduler.load and not self.rounds:
                return
            self.step()
        raise AssertionError("the shard does not come to an end")

    def _decode(self):
        for slot in np.flatnonzero(self.scheduler.slots.take_changes()[:, 0]):
            sequence = self.scheduler.slots.occupants[slot]
            self.rows[slot] = sequence and [list(sequence.tokens), sequence.limit]
        table, line = self.scheduler.slots.pages.copy(), deque(self.scheduler.line)
        for slot, row in enumerate(self.rows):
            if line and not (row and row[1]):
                sequence = line.popleft()
                self.rows[slot] = [list(sequence.tokens), sequence.limit]
                table[slot] = 0
                table[slot, : len(sequence.pages)] = sequence.pages
                self.taken_over += 1
        results = [[] for _ in self.rows]
        for _ in range(self.sizes.num_steps):
            for slot, row in enumerate(self.rows):
                if row is None or not row[1]:
                    continue
                tokens = row[0]
                pages = table[slot]
                self._write(pages, len(tokens) - 1, tokens[-1])
                self._see(pages, tokens)
                tokens.append(sampled(tokens))
                row[1] -= 1
                results[slot].append(tokens[-1])
        return results

    def _settle(self):
        if self.rounds:
            decoding, line, _ = self.rounds[0]
            decoding += self.scheduler.settle(line)

    def _read(self, decoding, line, results):
        for slot, sequence, run in decoding:
            if sequence.done or sequence.run != run:
                continue
            sequence.num_calls -= 1
            sequence.sampled += results[slot]
            if sequence.finish is None:
                continue
            self.scheduler.leave(sequence)
            handle = None
            if sequence.request.keep:
                handle = Handle((*sequence.tokens, *sequence.sampled), sequence.request.parent)
                self.kept.add(handle)
            self.scheduler.retire(sequence, handle)
            assert sequence.request.id not in self.finished
            self.finished[sequence.request.id] = (tuple(sequence.sampled), handle)

    def _write(self, pages, index, token):
        size = self.sizes.page_size
        if len(pages):
            assert pages[index // size] != 0, "the page is nobody's"
            self.memory[pages[index // size], index % size] = token

    def _see(self, pages, tokens):
        size = self.sizes.page_size
        index = np.arange(len(tokens))
        np.testing.assert_array_equal(self.memory[pages[index // size], index % size], tokens)

    def _check_counts(self):
        """Asserts that each page has as many references as holders."""
        scheduler, counts = self.scheduler, np.zeros(self.sizes.num_pages, int)
        for sequence in [*scheduler.slots.running(), *scheduler.opened]:
            np.add.at(counts, sequence.pages, 1)
        for node in scheduler.prefix_cache._nodes.values():
            if node.pages is not None:
                np.add.at(counts, node.pages, 1)
        np.testing.assert_array_equal(counts, scheduler.pool.counts)


def sampled(tokens):
    """The next token, a function of all tokens before it."""
    return hash(tuple(tokens)) % 1000


def expected(tokens, count):
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(sampled(tokens))
    return tuple(tokens[len(tokens) - count :])


def test_a_request_alone():
    device = Device(make_sizes(num_pages=20))
    device.submit("a", (1, 2, 3, 4, 5, 6), 7)
    device.run()
    assert device.finished["a"][0] == expected((1, 2, 3, 4, 5, 6), 7)
    assert device.scheduler.pool.num_free == 19
    assert device.stats.prefilled == 5


def test_children_share_full_pages_and_copy_the_last():
    device = Device(make_sizes(num_pages=40))
    device.submit("a", (1, 2, 3), 8, keep=True)
    device.run()
    handle = device.finished["a"][1]
    used = 39 - device.scheduler.pool.num_free
    assert (len(handle.tokens), used) == (11, 3)  # the last token is not in the cache yet
    for child in range(4):
        device.submit(child, (), 1, parent=handle)
    device.step()
    assert 39 - device.scheduler.pool.num_free == used + 4
    assert len(device.scheduler.copies) == 4
    device.run()
    assert all(device.finished[i][0] == expected(handle.tokens, 1) for i in range(4))
    assert (device.stats.reused, device.stats.prefilled) == (40, 2)


def test_a_kept_sequence_is_made_once_for_all_that_wait_for_it():
    device = Device(make_sizes(num_pages=60))
    template = device.keep(range(10, 20))
    question = device.keep((7, 8, 9), template)
    for index in range(4):
        device.submit(index, (index,), 2, parent=question)
    device.submit("other", (5,), 2, parent=template)
    device.run()
    assert device.finished["other"][0] == expected((*range(10, 20), 5), 2)
    # The prefix without its last token once, and that token for each child.
    assert device.stats.prefilled == 12 + 5
    assert template in device.scheduler.prefix_cache and question in device.scheduler.prefix_cache


def test_the_last_is_put_back_and_done_again_when_pages_run_out():
    sizes = make_sizes(num_pages=12)  # one sequence of 40 tokens needs ten
    device = Device(sizes)
    for index in range(4):
        device.submit(index, (index,), 38, priority=index)
    device.run()
    assert device.stats.preempted > 0
    assert list(device.finished) == [0, 1, 2, 3]
    assert all(device.finished[i][0] == expected((i,), 38) for i in range(4))


def test_an_evicted_handle_is_made_again():
    device = Device(make_sizes(num_pages=14))
    device.submit("a", (1, 2, 3), 20, keep=True)
    device.run()
    handle = device.finished["a"][1]
    device.submit("large", (9,), 39)
    device.run()
    assert handle not in device.scheduler.prefix_cache
    device.submit("child", (4,), 5, parent=handle)
    device.run()
    assert device.finished["child"][0] == expected((*handle.tokens, 4), 5)
    assert device.scheduler.prefix_cache.evicted == 1


@settings(max_examples=75, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    page_size=st.sampled_from([1, 2, 4, 7]),
    slack=st.sampled_from([2, 4, 12, 60]),
)
def test_any_company_in_any_memory(seed, page_size, slack):
    """Every request gets its own result, even in the smallest pool that holds a sequence."""
    rng = np.random.default_rng(seed)
    sizes = make_sizes(-(-MAX_LENGTH // page_size) + slack, page_size, int(rng.integers(1, 6)))
    device = Device(sizes, prefill_rows=int(rng.integers(1, 5)))
    handles, asked = [device.keep(rng.integers(0, 9, 6).tolist())], {}
    for id in range(30):
        for _ in range(rng.integers(0, 3)):
            device.step()
        handles += [
            handle for _, handle in device.finished.values() if handle and handle not in handles
        ]
        alive = [handle for handle in handles if handle in device.kept]
        if alive and rng.random() < 0.15:
            device.release(alive.pop(int(rng.integers(len(alive)))))
        if alive and rng.random() < 0.2:
            parent = alive[int(rng.integers(len(alive)))]
            if len(parent.tokens) < 25:
                handles.append(device.keep(rng.integers(0, 9, rng.integers(0, 6)).tolist(), parent))
        parent = alive[int(rng.integers(len(alive)))] if alive and rng.random() < 0.7 else None
        start = parent.tokens if parent else ()
        own = rng.integers(0, 9, rng.integers(0 if parent else 1, 9)).tolist()
        room = MAX_LENGTH - len(start) - len(own)
        if room < 1:
            continue
        limit = int(rng.integers(1, room + 1))
        asked[id] = expected((*start, *own), limit)
        priority = int(rng.integers(0, 5))
        device.submit(id, tuple(own), limit, parent, bool(rng.random() < 0.5), priority)
    device.run()
    assert {id: tokens for id, (tokens, _) in device.finished.items()} == asked
    for handle in list(device.kept):
        device.release(handle)
    device.step()
    assert device.scheduler.pool.num_free == sizes.num_pages - 1
    assert not device.scheduler.makers.making


def test_forgetting_frees_everything():
    device = Device(make_sizes(num_pages=30))
    device.submit("a", (1, 2, 3), 9, keep=True)
    device.run()
    device.scheduler.forget()
    assert device.scheduler.pool.num_free == 29
    device.submit("b", (4,), 3, parent=device.finished["a"][1])
    device.run()
    assert device.finished["b"][0] == expected((*device.finished["a"][1].tokens, 4), 3)


@pytest.mark.parametrize("num_slots", [1, 3, 8])
def test_slots_are_filled_at_once(num_slots):
    device = Device(make_sizes(num_pages=200, num_slots=num_slots), prefill_rows=20)
    for index in range(20):
        device.submit(index, (index, 1), 3)
    device.step()
    assert sum(1 for _ in device.scheduler.slots.running()) == num_slots
    device.run()
    assert len(device.finished) == 20


def test_a_slot_is_taken_over_in_the_call_behind_the_one_that_ends():
    """The host has not read yet that it has ended; the last call uses two steps of three."""
    device = Device(make_sizes(num_pages=200, num_slots=2))
    for index, limit in enumerate((6, 3, 3, 9, 2, 1)):
        device.submit(index, (index,), limit)
    device.step()
    calls = 1
    while device.rounds:
        device.step()
        calls += bool(device.rounds)
    assert {index: len(tokens) for index, (tokens, _) in device.finished.items()} == {
        0: 6, 1: 3, 2: 3, 3: 9, 4: 2, 5: 1
    }  # fmt: skip
    # Slot 0: 6 and 9 tokens; slot 1: 3, 3, 2 and 1, in calls of three steps.
    assert device.taken_over == 4 and calls == 5
