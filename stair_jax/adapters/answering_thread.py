"""A loaded model in a thread of its own, which many coroutines ask at the same time."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.run.answering import Answerer


class _Job(NamedTuple):
    make: Callable[[Answerer], Task[Any]]
    answer: "Future[Any]"


class AnsweringThread:
    """Steps the driver of an answerer; what is asked meanwhile joins the batch of the engine.

    The model is loaded, and tasks are made, in the thread too: tokenizers are not made for several.
    """

    def __init__(self, load: Callable[[], Answerer]):
        """A thread that waits for something to do.

        Args:
          load: reads the model; called once, when something is asked for the first time. What it
            raises is raised by each `ask`.
        """
        self._load = load
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._running: dict[int, Future[Any]] = {}
        self._thread = threading.Thread(target=self._run, name="stair_jax", daemon=True)
        self._is_closed = False
        self._thread.start()

    async def ask(self, make: Callable[[Answerer], Task[Any]]) -> Any:
        """The result of a task; where the coroutine is cancelled, so is the task.

        Args:
          make: makes the task, called in the thread.

        Raises:
          UserError: the event loop is not that of asyncio; or whatever `make` or the engine raise.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            raise UserError(
                "models of stair_jax are asked by coroutines of asyncio: unset "
                "INSPECT_ASYNC_BACKEND, or set it to asyncio"
            ) from error
        assert not self._is_closed, "the thread was closed"
        answer: Future[Any] = Future()
        self._jobs.put(_Job(make, answer))
        return await asyncio.wrap_future(answer)

    def close(self) -> None:
        """Ends the thread; what is not answered is cancelled."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        answerer: Answerer | None = None
        broken: BaseException | None = None
        while (job := self._jobs.get()) is not None:
            if broken is not None:
                _fail(job.answer, broken)
                continue
            try:
                answerer = answerer or self._load()
                if not self._answer(answerer, job):
                    return
            except BaseException as error:
                # Of loading or of the engine, which is in no known state: nobody is answered now.
                broken = error
                for answer in (job.answer, *self._running.values()):
                    _fail(answer, error)
                self._running.clear()

    def _answer(self, answerer: Answerer, first: _Job) -> bool:
        """Answers until nothing is left; returns whether the thread goes on."""
        driver = answerer.driver
        self._add(answerer, first)
        while self._running or not self._jobs.empty():
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    driver.close()
                    for answer in self._running.values():
                        answer.cancel()
                    return False
                self._add(answerer, job)
            for ticket in [t for t, answer in self._running.items() if answer.cancelled()]:
                driver.cancel(ticket)
                del self._running[ticket]
            for finished in driver.step() if driver.pending else ():
                answer = self._running.pop(finished.ticket)
                if answer.set_running_or_notify_cancel():
                    answer.set_result(finished.result)
        return True

    def _add(self, answerer: Answerer, job: _Job) -> None:
        try:
            task = job.make(answerer)
        except Exception as error:  # of this one alone, such as a chat that the template refuses
            _fail(job.answer, error)
            return
        self._running[answerer.driver.add(task)] = job.answer


def _fail(answer: "Future[Any]", error: BaseException) -> None:
    if not answer.done() and answer.set_running_or_notify_cancel():
        answer.set_exception(error)
