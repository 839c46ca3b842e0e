"""Items by a task each: a worker keeps its engine full, and says what it made in good time."""

from itertools import count
from types import SimpleNamespace

import pytest

from stair_jax.cluster.work import Order
from stair_jax.decoding import item_tasks
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.item_tasks import TaskWorker, run_here
from stair_jax.decoding.requests import EngineStats
from stair_jax.testing.scripted_target import CallTask, ScriptedService

SLOTS, ROOM = 8, 16


class SlowService(ScriptedService):
    """Completes a call a step."""

    def step(self):
        later = self.waiting[1:]
        del self.waiting[1:]
        completed = super().step()
        self.waiting += later
        return completed


@pytest.fixture
def clock(monkeypatch):
    """A second passes between two looks at it; the sleeps are listed."""
    slept, ticks = [], count()
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)), sleep=slept.append)
    monkeypatch.setattr(item_tasks, "time", clock)
    return slept


@pytest.fixture
def worker(clock):
    """A worker whose results are ten times the items plus what it was told first."""
    open_tasks = set()

    def begin(shared):
        return lambda item: CallTask(lambda: 10 * item + shared, open_tasks)

    yield TaskWorker(Driver(SlowService()), begin, SLOTS, EngineStats(generated=7))
    assert not open_tasks


def order(*items, is_last=False, shared=3):
    return Order([(f"k{item}", item) for item in items], is_last, shared)


def results(report):
    return [(id, made.key, made.result) for id, made in report.finished]


def test_a_worker_that_got_some_asks_for_more_at_once_and_then_waits_for_results(worker):
    first = worker.exchange(order(*range(6)), 1000.0)
    assert results(first) == [("k0", "k0", 3)] and first.wants == ROOM - 5
    second = worker.exchange(order(), 1000.0)  # nothing more for now: it says what it made
    assert results(second) == [("k1", "k1", 13), ("k2", "k2", 23)]  # an eighth of its room
    last = worker.exchange(order(is_last=True), 1000.0)
    assert [id for id, *_ in results(last)] == ["k3", "k4", "k5"] and last.wants == ROOM
    assert last.totals == EngineStats(generated=7)


def test_what_all_items_share_is_read_once(worker):
    worker.exchange(order(1, shared=3), 1000.0)
    assert results(worker.exchange(order(2, shared=4), 1000.0)) == [("k2", "k2", 23)]


def test_time_ends_an_exchange_and_a_worker_without_work_rests(worker, clock):
    full = worker.exchange(order(*range(ROOM), is_last=True), 20.0)
    assert 0 < len(full.finished) < ROOM and not clock
    while worker.exchange(order(is_last=True), 1000.0).wants < ROOM:
        pass
    assert worker.exchange(order(), 0.1).finished == [] and clock == [0.1]


def test_the_seconds_of_an_item_are_from_its_start_to_its_end(clock):
    run = run_here(Driver(SlowService()), lambda item: CallTask(lambda: item, set()), in_flight=2)
    made = [each for some in run([("a", 1), ("b", 2), ("c", 3)]) for each in some]
    # a and b start at 0 and 1, a ends at 2; c starts at 3, b ends at 4, c at 5.
    assert made == [("a", 1, 2.0), ("b", 2, 3.0), ("c", 3, 2.0)]
