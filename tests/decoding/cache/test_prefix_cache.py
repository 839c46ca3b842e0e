"""The prefix cache: hand-made trees, and a reference model in plain Python."""

import gc
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stair_jax.decoding.cache.page_pool import PagePool
from stair_jax.decoding.cache.prefix_cache import PrefixCache
from stair_jax.decoding.requests import Handle

PAGE = 4


def make(num_pages=32):
    pool = PagePool(num_pages)
    return pool, PrefixCache(pool, PAGE)


def root(num_tokens):
    return Handle(tuple(range(num_tokens)))


def child(parent, num_tokens):
    return Handle((*parent.tokens, *range(num_tokens)), parent)


def enter(pool, prefix_cache, handle):
    """Creates an entry as the engine does: shares full pages, takes the others, inserts."""
    _, found, cached = prefix_cache.find(handle)
    full = found[: cached // PAGE]
    pool.share(full)
    own = pool.take(prefix_cache.num_pages(len(handle.tokens)) - len(full))
    pages = np.concatenate([full, own])
    prefix_cache.insert(handle, pages)
    return pages.tolist()


def test_an_entry_has_pages_for_all_tokens_but_the_last():
    _, prefix_cache = make()
    assert [prefix_cache.num_pages(n) for n in (1, 2, 5, 6, 9, 10)] == [0, 1, 1, 2, 2, 3]


def test_find_goes_up_to_the_nearest_entry():
    pool, prefix_cache = make()
    a = root(6)
    b = child(a, 5)
    c = child(b, 3)
    assert prefix_cache.find(c)[0] is None
    assert prefix_cache.find(None)[2] == 0
    pages = enter(pool, prefix_cache, a)
    handle, found, cached = prefix_cache.find(c)
    assert (handle, found.tolist(), cached) == (a, pages, 5)
    longer = enter(pool, prefix_cache, c)
    assert longer[0] == pages[0]
    assert longer[1] != pages[1]
    assert prefix_cache.find(c)[1].tolist() == longer
    assert prefix_cache.find(b)[0] is a
    assert (a in prefix_cache, b in prefix_cache, len(prefix_cache)) == (True, False, 2)
    with pytest.raises(ValueError):
        prefix_cache.find(c)[1][0] = 0


def test_a_sequence_of_one_token_has_an_entry_without_pages():
    pool, prefix_cache = make(3)
    a = root(1)
    assert enter(pool, prefix_cache, a) == []
    assert prefix_cache.find(child(a, 9))[::2] == (a, 0)
    assert not prefix_cache.evict(3)
    assert a not in prefix_cache


def test_a_wrong_number_of_pages_is_refused():
    pool, prefix_cache = make()
    with pytest.raises(ValueError, match="6 tokens have 2 pages of 4, not 1"):
        prefix_cache.insert(root(6), pool.take(1))
    with pytest.raises(ValueError, match="more pages"):
        prefix_cache.adopt(root(6), pool.take(1))


def test_a_second_insert_gives_its_references_back():
    pool, prefix_cache = make()
    a = root(6)
    pages = enter(pool, prefix_cache, a)
    prefix_cache.insert(a, pool.take(2))
    assert prefix_cache.find(a)[1].tolist() == pages
    assert pool.num_free == 31 - 2


def test_adopt_shares_the_pages_with_every_ancestor_on_the_way():
    pool, prefix_cache = make()
    a = root(6)
    b = child(a, 5)
    released = child(b, 1)
    c = child(released, 3)
    d = child(c, 4)
    enter(pool, prefix_cache, a)
    prefix_cache.remove(released)
    first = pool.take(5)
    prefix_cache.adopt(d, first)
    assert prefix_cache.find(b)[1].tolist() == first[:3].tolist()
    assert prefix_cache.find(released)[0] is b
    assert prefix_cache.find(c)[1].tolist() == first[:4].tolist()
    assert prefix_cache.find(a)[1].tolist() != first[:2].tolist()
    assert pool.count(first).tolist() == [4, 4, 4, 3, 2]
    # A second time: all entries exist already.
    prefix_cache.adopt(d, first)
    assert pool.count(first).tolist() == [4, 4, 4, 3, 2]


def test_leaves_go_first_and_of_them_the_least_recently_used():
    pool, prefix_cache = make(32)
    a = root(5)
    b, c = child(a, 4), child(a, 4)
    d = child(b, 4)
    for handle in (a, b, c, d):
        enter(pool, prefix_cache, handle)
    prefix_cache.touch(c)
    prefix_cache.touch(d)
    gone = []
    while prefix_cache.evict(pool.num_free + 1):
        gone += [h for h in (a, b, c, d) if h not in prefix_cache and h not in gone]
    # c was used before d; b, used together with d, went before its parent.
    assert gone == [c, d, b, a]
    assert prefix_cache.evicted == 4
    assert pool.num_free == 31


def test_eviction_goes_on_past_entries_that_free_no_page():
    pool, prefix_cache = make(6)
    a, other = root(8), root(9)
    pages = enter(pool, prefix_cache, a)
    prefix_cache.adopt(child(a, 1), pages)
    enter(pool, prefix_cache, other)
    # The least recently used leaf shares both of its pages with its parent.
    assert pool.num_free == 1
    assert prefix_cache.evict(2)
    assert (len(prefix_cache), prefix_cache.evicted, other in prefix_cache) == (1, 2, True)
    assert pool.num_free == 3


def test_a_pin_holds_a_handle_and_its_ancestors():
    pool, prefix_cache = make(8)
    a = root(6)
    b, c = child(a, 3), child(a, 4)
    for handle in (a, b):
        enter(pool, prefix_cache, handle)
    assert prefix_cache.evictable_pages == 3
    prefix_cache.pin(c)  # which has no entry yet
    assert prefix_cache.evictable_pages == 1
    assert not prefix_cache.evict(7)
    assert (a in prefix_cache, b in prefix_cache) == (True, False)
    prefix_cache.pin(c)
    enter(pool, prefix_cache, c)
    prefix_cache.unpin(c)
    assert prefix_cache.evictable_pages == 0
    prefix_cache.unpin(c)
    assert prefix_cache.evictable_pages == 4
    assert prefix_cache.evict(7)
    with pytest.raises(ValueError, match="not pinned"):
        prefix_cache.unpin(c)


def test_a_removed_handle_leads_on_to_its_ancestors():
    pool, prefix_cache = make()
    a = root(6)
    b = child(a, 4)
    c = child(b, 4)
    for handle in (a, b, c):
        enter(pool, prefix_cache, handle)
    used = 31 - pool.num_free
    prefix_cache.remove(b)
    assert 31 - pool.num_free == used - 1  # its partial page
    prefix_cache.remove(c)
    assert prefix_cache.find(c)[0] is a
    prefix_cache.remove(a)
    assert pool.num_free == 31
    prefix_cache.insert(b, pool.take(3))
    assert b not in prefix_cache
    assert pool.num_free == 31


def test_removal_waits_for_the_last_pin():
    pool, prefix_cache = make()
    a = root(6)
    enter(pool, prefix_cache, a)
    prefix_cache.pin(a)
    prefix_cache.pin(a)
    prefix_cache.remove(a)
    prefix_cache.unpin(a)
    assert a in prefix_cache
    prefix_cache.unpin(a)
    assert a not in prefix_cache
    assert pool.num_free == 31


def test_a_shortened_handle_keeps_the_first_pages():
    pool, prefix_cache = make()
    old = root(14)
    pages = enter(pool, prefix_cache, old)
    new = root(6)
    prefix_cache.shorten(old, new, 6)
    assert prefix_cache.find(new)[1].tolist() == pages[:2]
    assert old not in prefix_cache
    assert pool.num_free == 31 - 2
    with pytest.raises(ValueError, match="7 of 6 tokens"):
        prefix_cache.shorten(new, root(7), 7)
    # Without an entry there is nothing to share.
    bare = root(3)
    prefix_cache.shorten(root(9), bare, 3)
    assert bare not in prefix_cache


def test_clear_forgets_the_pages_and_not_the_handles():
    pool, prefix_cache = make()
    a = root(6)
    b = child(a, 6)
    enter(pool, prefix_cache, a)
    enter(pool, prefix_cache, b)
    prefix_cache.pin(a)
    with pytest.raises(ValueError, match="pinned"):
        prefix_cache.clear()
    prefix_cache.unpin(a)
    prefix_cache.clear()
    assert (len(prefix_cache), pool.num_free, prefix_cache.evictable_pages) == (0, 31, 0)
    enter(pool, prefix_cache, b)
    assert prefix_cache.evict(31)


def test_nothing_of_a_released_handle_stays_in_memory():
    """Even if pages never ran short, so that nothing was popped from the heap of leaves."""
    pool, prefix_cache = make(1000)
    handles = [root(6) for _ in range(400)]
    for handle in handles:
        enter(pool, prefix_cache, handle)
    watched = [weakref.ref(handle) for handle in handles]
    for handle in handles:
        prefix_cache.remove(handle)
    for _ in range(100):
        last = root(2)
        enter(pool, prefix_cache, last)
        prefix_cache.remove(last)
    del handles, handle
    gc.collect()
    assert [ref for ref in watched if ref() is not None] == []


def test_thousands_of_entries_go_in_the_order_of_their_use():
    """A long run of uses and evictions: each eviction takes the least recently used leaf."""
    rng = np.random.default_rng(0)
    pool, prefix_cache = make(40_000)
    handles = [root(6)]
    for _ in range(3000):
        handles.append(child(handles[rng.integers(len(handles))], int(rng.integers(1, 9))))
    for handle in handles:
        prefix_cache.insert(handle, pool.take(prefix_cache.num_pages(len(handle.tokens))))
    clock = dict.fromkeys(handles, 0)
    for now in range(1, 3000):
        used = handles[rng.integers(len(handles))]
        prefix_cache.touch(used)
        while used is not None:
            clock[used] = now
            used = used.parent
    children = Counter(handle.parent for handle in handles)
    last = 0
    while len(prefix_cache):
        before = [handle for handle in handles if handle in prefix_cache]
        prefix_cache.evict(pool.num_free + 1000)
        gone = [handle for handle in before if handle not in prefix_cache]
        assert gone
        kept_leaves = [h for h in before if h in prefix_cache and not children[h]]
        leaves_gone = [h for h in gone if not children[h]]
        if kept_leaves and leaves_gone:
            assert max(clock[h] for h in leaves_gone) <= min(clock[h] for h in kept_leaves)
        for handle in gone:
            children[handle.parent] -= 1
        last += len(gone)
    assert last == prefix_cache.evicted == 3001
    assert pool.num_free == 39_999


def lineage(handle):
    return [] if handle is None else [handle, *lineage(handle.parent)]


class Model(RuleBasedStateMachine):
    """Tracks references, times of use and evictable entries in plain sets and dicts."""

    def __init__(self):
        super().__init__()
        self.pool, self.prefix_cache = make(24)
        self.handles = []
        self.entries = {}  # handle -> pages
        self.outside = []  # lists of pages that running sequences hold
        self.pins = []
        self.released = set()
        self.used = Counter()
        self.clock = 0
        self.evicted = 0

    def free(self):
        held = {page for pages in [*self.entries.values(), *self.outside] for page in pages}
        return 23 - len(held)

    def descendants(self, handle):
        return {h for h in self.entries if h is not handle and handle in lineage(h)}

    def is_held(self, handle):
        return any(handle in lineage(pinned) for pinned in self.pins)

    def touch_model(self, handle):
        self.clock += 1
        for ancestor in lineage(handle):
            self.used[ancestor] = self.clock

    def settle(self):
        """Drops entries of released handles that have no pin."""
        for handle in list(self.entries):
            if handle in self.released and not self.is_held(handle):
                del self.entries[handle]

    def evict_model(self, num_pages):
        while self.free() < num_pages:
            leaves = [
                handle
                for handle in self.entries
                if not self.is_held(handle) and not self.descendants(handle)
            ]
            if not leaves:
                return False
            del self.entries[min(leaves, key=lambda handle: self.used[handle])]
            self.evicted += 1
        return True

    def pick(self, data):
        return data.draw(st.sampled_from(self.handles))

    @rule(data=st.data(), num_tokens=st.integers(1, 9), is_root=st.booleans())
    def keep(self, data, num_tokens, is_root):
        if is_root or not self.handles:
            self.handles.append(root(num_tokens))
        else:
            parent = self.pick(data)
            if len(parent.tokens) < 40:
                self.handles.append(child(parent, num_tokens))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), extra=st.integers(0, 2), insert=st.booleans(), adopt=st.booleans())
    def run(self, data, extra, insert, adopt):
        """Runs a sequence that continues a handle and leaves entries behind."""
        handle = self.pick(data)
        found, pages, cached = self.prefix_cache.find(handle)
        expected = next((h for h in lineage(handle) if h in self.entries), None)
        assert found is expected
        if found is not None:
            assert pages.tolist() == self.entries[found]
            assert cached == len(found.tokens) - 1
        self.prefix_cache.pin(handle)
        self.pins.append(handle)
        full = pages[: cached // PAGE]
        num_new = self.prefix_cache.num_pages(len(handle.tokens)) + extra - len(full)
        if self.prefix_cache.evict(num_new):
            assert self.evict_model(num_new)
            self.pool.share(full)
            row = [*full.tolist(), *self.pool.take(num_new).tolist()]
            self.outside.append(row)
            own = row[: self.prefix_cache.num_pages(len(handle.tokens))]
            if insert:
                self.pool.share(own)
                self.prefix_cache.insert(handle, own)
                self.entries.setdefault(handle, own)
                self.touch_model(handle)
            if adopt:
                self.prefix_cache.adopt(handle, row)
                for ancestor in lineage(handle):
                    if ancestor in self.entries and ancestor is not handle:
                        break
                    if ancestor not in self.released:
                        num_pages = self.prefix_cache.num_pages(len(ancestor.tokens))
                        self.entries.setdefault(ancestor, row[:num_pages])
                self.touch_model(handle)
        else:
            assert not self.evict_model(num_new)
        if data.draw(st.booleans()):
            self.unpin(data, len(self.pins) - 1)

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), index=st.none())
    def unpin(self, data, index):
        if index is None:
            index = data.draw(st.integers(0, len(self.pins) - 1))
        self.prefix_cache.unpin(self.pins.pop(index))
        self.settle()

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def pin(self, data):
        handle = self.pick(data)
        self.prefix_cache.pin(handle)
        self.pins.append(handle)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def touch(self, data):
        handle = self.pick(data)
        self.prefix_cache.touch(handle)
        self.touch_model(handle)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def remove(self, data):
        handle = self.pick(data)
        self.handles.remove(handle)
        self.prefix_cache.remove(handle)
        self.released.add(handle)
        self.settle()

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def shorten(self, data):
        old = self.pick(data)
        shortest = len(old.parent.tokens) if old.parent else 1
        num_tokens = data.draw(st.integers(shortest, len(old.tokens)))
        new = Handle(old.tokens[:num_tokens], old.parent)
        self.handles.remove(old)
        self.handles.append(new)
        self.prefix_cache.shorten(old, new, num_tokens)
        if old in self.entries:
            self.entries[new] = self.entries[old][: self.prefix_cache.num_pages(num_tokens)]
            self.touch_model(new)
        self.released.add(old)
        self.settle()

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def finish(self, data):
        self.pool.drop(self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1))))

    @rule(num_pages=st.integers(0, 24))
    def evict(self, num_pages):
        assert self.prefix_cache.evict(num_pages) == self.evict_model(num_pages)

    @invariant()
    def the_pool_counts_what_is_held(self):
        held = Counter(p for pages in [*self.entries.values(), *self.outside] for p in pages)
        assert self.pool.counts.tolist() == [held[page] for page in range(24)]

    @invariant()
    def the_entries_are_those_of_the_model(self):
        assert len(self.prefix_cache) == len(self.entries)
        for handle, pages in self.entries.items():
            assert self.prefix_cache.find(handle)[1].tolist() == pages
        assert self.prefix_cache.evicted == self.evicted

    @invariant()
    def evictable_pages_are_those_that_eviction_would_free(self):
        stay = [pages for handle, pages in self.entries.items() if self.is_held(handle)]
        stay = {page for pages in [*stay, *self.outside] for page in pages}
        assert self.prefix_cache.evictable_pages == 23 - len(stay) - self.free()

    def teardown(self):
        for pages in self.outside:
            self.pool.drop(pages)
        for handle in self.pins:
            self.prefix_cache.unpin(handle)
        for handle in self.handles:
            self.prefix_cache.remove(handle)
        assert self.pool.num_free == 23
        assert len(self.prefix_cache) == 0


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=50)
