"""The driver's loop over simulated workers: who does what, and how long all of it takes."""

import random

import pytest

from stair_jax.cluster.dealer import Dealer
from stair_jax.cluster.pool import Lost
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.errors import UserError
from stair_jax.testing.clock_pool import ClockPool

HOUR = 3600.0


def deal(pool, seconds):
    """The worker of each item of these lengths."""
    by = {}

    items = list(enumerate(seconds))
    # Its prompt says little of how long a tree takes: the driver knows no sizes here.
    for found in Dealer(pool).deal(WorkQueue(items, lambda item: item[0])):
        for worker, id, _ in found:
            assert id not in by
            by[id] = worker
    assert by.keys() == dict(items).keys()
    return by


def lengths(count, seed=0):
    """Seconds of trees: 20 minutes on the average, some several times that."""
    rng = random.Random(seed)
    return [20 * 60 * rng.lognormvariate(-0.125, 0.5) for _ in range(count)]


def stretch(machines, count, life, seed):
    """Makespan over that of workers that neither start nor die nor wait, with 48 trees each."""
    pool, work = ClockPool(machines, 48, start=300.0, life=life, seed=seed), lengths(count, seed)
    deal(pool, work)
    ideal = sum(work) / (machines * 48)
    print(
        f"{machines} workers, {pool.deaths} deaths: {pool.now / ideal:.3f} x {ideal / HOUR:.1f} h"
    )
    return pool.now / ideal


@pytest.mark.parametrize("seed", range(3))
def test_eight_workers_take_little_more_than_an_eighth_of_the_time(seed):
    assert stretch(8, 15_000, 0.0, seed) <= 1.2


@pytest.mark.parametrize("seed", range(3))
def test_32_workers_that_die_every_six_hours_take_less_than_twice_the_ideal(seed):
    assert stretch(32, 30_000, 6 * HOUR, seed) <= 2.0


def test_few_items_are_spread_over_all_workers():
    by = deal(ClockPool(4, 48), [600.0] * 12)
    assert sorted(map(list(by.values()).count, set(by.values()))) == [3, 3, 3, 3]


def test_a_worker_that_joins_in_the_middle_gets_work_at_once():
    pool, first = ClockPool(1, 2, joins=[1000.0]), {}
    queue = WorkQueue([(number, 300.0) for number in range(20)], lambda item: item[0])
    for found in Dealer(pool).deal(queue):
        for dealt in found:
            first.setdefault(dealt.worker, pool.now)
    assert list(first.values()) == [300.0, 1300.0]  # ends of the first items of each


def test_a_slow_start_of_one_worker_holds_nobody_up():
    pool = ClockPool(2, 4, start=0.0, joins=[10.0])
    deal(pool, [100.0] * 24)
    assert pool.now <= 310


class DyingPool:
    """Workers that all die at once, whoever takes their place."""

    def names(self):
        return ["a"]

    def wait(self, seconds):
        return [Lost("a", "OutOfMemory")]

    def send(self, worker, order):
        raise AssertionError("nobody has come")


def test_workers_that_die_one_after_another_end_the_run():
    queue = WorkQueue([1], lambda item: item)
    with pytest.raises(UserError, match=r"9 workers died one after another.*OutOfMemory"):
        list(Dealer(DyingPool()).deal(queue))
