"""A thread that steps a driver for many coroutines."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.run.answering_thread import AnsweringThread
from stair_jax.testing.scripted_target import CallTask, ScriptedService


class CountingService(ScriptedService):
    """Keeps how many calls waited at each step, and waits for `gate` before it."""

    def __init__(self, gate=None):
        super().__init__()
        self.waited, self._gate = [], gate

    def step(self):
        if self._gate is not None:
            self._gate.wait()
        self.waited.append(len(self.waiting))
        return super().step()


@pytest.fixture
def make_thread():
    """`make(service)`: a thread over a driver of the service, closed at the end."""
    threads = []

    def make(service):
        threads.append(AnsweringThread(lambda: SimpleNamespace(driver=Driver(service))))
        return threads[-1]

    yield make
    for thread in threads:
        thread.close()


def calling(compute, opened):
    return lambda answerer: CallTask(compute, opened)


def refuse():
    raise UserError("the template refuses it")


def test_each_coroutine_gets_its_own_result_and_waits_in_one_batch(make_thread):
    gate, opened = threading.Event(), set()
    service = CountingService(gate)
    thread = make_thread(service)

    async def ask_all():
        asked = [
            asyncio.create_task(thread.ask(calling(lambda n=n: n * n, opened))) for n in range(20)
        ]
        await asyncio.sleep(0)  # all are in the queue
        gate.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask_all()) == [n * n for n in range(20)]
    assert len(service.waited) <= 2  # the first one may have been taken alone
    assert not opened


def test_a_task_that_cannot_be_made_leaves_the_others_alone(make_thread):
    thread = make_thread(ScriptedService())

    async def ask_both():
        good = thread.ask(calling(lambda: "good", set()))
        bad = thread.ask(lambda answerer: refuse())
        return await asyncio.gather(bad, good, return_exceptions=True)

    error, result = asyncio.run(ask_both())
    assert isinstance(error, UserError) and result == "good"


def test_an_error_of_the_engine_is_raised_in_all_that_ask_then_and_later(make_thread):
    class Broken(ScriptedService):
        def step(self):
            raise MemoryError("the device is full")

    thread = make_thread(Broken())

    async def ask_all():
        asked = [thread.ask(calling(lambda: 1, set())) for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [*found, *await asyncio.gather(thread.ask(refuse), return_exceptions=True)]

    found = asyncio.run(ask_all())
    assert [str(error) for error in found] == ["the device is full"] * 4


def test_an_engine_that_breaks_as_a_task_is_added_leaves_nobody_waiting(make_thread):
    class Breaking(ScriptedService):
        def submit(self, requests):
            if self.waiting:
                raise MemoryError("the device is full")
            super().submit(requests)

    gate = threading.Event()
    thread = make_thread(Breaking())

    def wait_first(answerer):
        gate.wait()  # so that the second one finds the first one running
        return CallTask(lambda: 1, set())

    async def ask_both():
        first = asyncio.create_task(thread.ask(wait_first))
        second = asyncio.create_task(thread.ask(calling(lambda: 2, set())))
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 30)

    assert [str(error) for error in asyncio.run(ask_both())] == ["the device is full"] * 2


def test_a_model_that_cannot_be_loaded_is_loaded_once():
    loaded = []

    def load():
        loaded.append(1)
        raise UserError("there are no weights")

    thread = AnsweringThread(load)

    async def ask_twice():
        for _ in range(2):
            with pytest.raises(UserError, match="no weights"):
                await thread.ask(calling(lambda: 1, set()))

    asyncio.run(ask_twice())
    thread.close()
    assert loaded == [1]


def test_a_cancelled_coroutine_cancels_its_task(make_thread):
    gate, opened = threading.Event(), set()
    thread = make_thread(CountingService(gate))

    async def cancel_one():
        lost = asyncio.create_task(thread.ask(calling(lambda: "lost", opened)))
        await asyncio.sleep(0)
        lost.cancel()
        kept = asyncio.create_task(thread.ask(calling(lambda: "kept", opened)))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await lost
        return await kept

    assert asyncio.run(cancel_one()) == "kept"
    assert not opened


def test_closing_cancels_what_is_under_way():
    gate, opened = threading.Event(), set()
    thread = AnsweringThread(lambda: SimpleNamespace(driver=Driver(Endless(gate))))

    async def close_early():
        asked = asyncio.create_task(thread.ask(calling(lambda: 1, opened)))
        await asyncio.to_thread(gate.wait)  # until the driver steps
        await asyncio.to_thread(thread.close)
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(close_early())
    assert not opened


class Endless(ScriptedService):
    """Completes nothing; sets `stepped` when it is stepped."""

    def __init__(self, stepped):
        super().__init__()
        self._stepped = stepped

    def step(self):
        self._stepped.set()
        return []


def test_another_kind_of_event_loop_is_refused(make_thread):
    thread = make_thread(ScriptedService())
    with pytest.raises(UserError, match="INSPECT_ASYNC_BACKEND"):
        thread.ask(refuse).send(None)
