"""The page pool against reference models in plain Python."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stair_jax.decoding.cache.page_pool import PagePool


def test_take_gives_each_page_once_and_never_page_0():
    pool = PagePool(8)
    assert (pool.num_pages, pool.num_free) == (8, 7)
    first, second = pool.take(3), pool.take(4)
    assert sorted([*first, *second]) == [1, 2, 3, 4, 5, 6, 7]
    assert first.dtype == np.int32
    assert pool.num_free == 0
    assert pool.take(0).tolist() == []
    assert pool.take(1) is None


def test_too_few_pages_change_nothing():
    pool = PagePool(4)
    assert pool.take(4) is None
    assert pool.num_free == 3
    assert sorted(pool.take(3)) == [1, 2, 3]


def test_the_page_freed_last_goes_first():
    pool = PagePool(10)
    ids = pool.take(5)
    pool.drop(ids[:2])
    pool.drop(ids[4:])
    assert pool.take(1).tolist() == ids[4:].tolist()
    assert set(pool.take(2)) == set(ids[:2])


def test_references_are_counted_with_duplicates():
    pool = PagePool(5)
    a, b = pool.take(2)
    pool.share([a, a, b])
    assert pool.count([a, b, 0]).tolist() == [3, 2, 0]
    pool.drop([a, b, a])
    assert pool.count([a, b]).tolist() == [1, 1]
    assert pool.num_free == 2
    pool.share([a])
    pool.drop([a, b, a])
    assert pool.count([a, b]).tolist() == [0, 0]
    assert sorted(pool.take(4)) == [1, 2, 3, 4]


@pytest.mark.parametrize("operation", ["share", "drop"])
@pytest.mark.parametrize("wrong", [0, 3, 5, -1], ids=["nobody", "free", "beyond", "below"])
def test_a_page_that_is_not_in_use_is_refused_and_nothing_changes(operation, wrong):
    pool = PagePool(5)
    ids = pool.take(2)
    pool.share(ids)
    with pytest.raises(ValueError, match="pages"):
        getattr(pool, operation)([ids[0], wrong, ids[1]])
    assert pool.count(ids).tolist() == [2, 2]
    assert pool.num_free == 2


def test_dropping_more_than_there_are_references_changes_nothing():
    pool = PagePool(5)
    a, b = pool.take(2)
    pool.share([a])
    with pytest.raises(ValueError, match="lose more references"):
        pool.drop([a, b, b])
    assert pool.count([a, b]).tolist() == [2, 1]
    assert pool.num_free == 2


def test_other_misuse_is_refused():
    with pytest.raises(ValueError, match="page 0"):
        PagePool(0)
    with pytest.raises(ValueError, match="-1"):
        PagePool(3).take(-1)
    with pytest.raises(ValueError):
        PagePool(3).counts[1] = 1


def test_millions_of_random_operations_lose_no_page():
    """Calls with up to hundreds of pages each; the reference counts page by page."""
    rng = np.random.default_rng(0)
    pool = PagePool(3000)
    held: list[int] = []  # one element per reference
    references = [0] * 3000
    operations = 0
    while operations < 3_000_000:
        kind = rng.integers(3)
        if kind == 0:
            want = int(rng.integers(600))
            free = pool.num_free
            ids = pool.take(want)
            assert (ids is None) == (want > free)
            for page in [] if ids is None else ids.tolist():
                assert page != 0
                assert references[page] == 0
                references[page] = 1
                held.append(page)
            operations += 0 if ids is None else want
        elif held:
            # A slice of the shuffled references, with whatever duplicates it has.
            size = int(rng.integers(1, 900))
            start = int(rng.integers(len(held)))
            named = held[start : start + size]
            if kind == 1 and len(held) < 20_000:
                pool.share(named)
                held += named
                for page in named:
                    references[page] += 1
            else:
                pool.drop(named)
                del held[start : start + size]
                for page in named:
                    references[page] -= 1
            operations += len(named)
        if rng.integers(50) == 0:
            order = rng.permutation(len(held))
            held = np.array(held, int)[order].tolist()
            assert pool.counts.tolist() == references
            assert pool.num_free == references.count(0) - 1
    pool.drop(held)
    assert pool.num_free == 2999
    assert sorted(pool.take(2999)) == list(range(1, 3000))


class SmallPool(RuleBasedStateMachine):
    """Random valid and invalid calls on a pool of six pages."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(6)
        self.model = dict.fromkeys(range(6), 0)

    @rule(count=st.integers(0, 6))
    def take(self, count):
        free = [page for page in range(1, 6) if self.model[page] == 0]
        ids = self.pool.take(count)
        if count > len(free):
            assert ids is None
            return
        assert len(set(ids.tolist())) == count
        assert set(ids.tolist()) <= set(free)
        self.model.update(dict.fromkeys(ids.tolist(), 1))

    @rule(ids=st.lists(st.integers(-1, 6), max_size=6))
    def share(self, ids):
        if any(self.model.get(page, 0) == 0 for page in ids):
            with pytest.raises(ValueError):
                self.pool.share(ids)
            return
        self.pool.share(ids)
        for page in ids:
            self.model[page] += 1

    @rule(ids=st.lists(st.integers(-1, 6), max_size=6))
    def drop(self, ids):
        if any(self.model.get(page, 0) < ids.count(page) for page in ids):
            with pytest.raises(ValueError):
                self.pool.drop(ids)
            return
        self.pool.drop(ids)
        for page in ids:
            self.model[page] -= 1

    @rule()
    def drop_all(self):
        self.pool.drop([page for page, count in self.model.items() for _ in range(count)])
        self.model = dict.fromkeys(range(6), 0)

    @invariant()
    def counts_are_those_of_the_model(self):
        assert self.pool.count(range(6)).tolist() == list(self.model.values())
        assert self.pool.num_free == sum(self.model[page] == 0 for page in range(1, 6))


TestSmallPool = SmallPool.TestCase
TestSmallPool.settings = settings(max_examples=60, stateful_step_count=40)
