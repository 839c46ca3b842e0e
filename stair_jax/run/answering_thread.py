"""A loaded model in a thread of its own, which many coroutines ask at the same time."""

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from stair_jax.decoding.driver import TokenListener
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError
from stair_jax.run.answering import Answerer

Make = Callable[[Answerer], Task[Any]]


class Asked(ABC):
    """Something that the thread is asked; it calls all methods itself.

    Attributes:
      priority: see `Driver.add`.
      on_tokens: see `Driver.add`.
    """

    priority = 0
    on_tokens: TokenListener | None = None

    @property
    @abstractmethod
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more; looked at between two steps."""

    @abstractmethod
    def make(self, answerer: Answerer) -> Task[Any]:
        """The task; what this raises concerns this one alone."""

    @abstractmethod
    def finish(self, result: Any) -> None:
        """Takes the result of the task."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Takes what `make`, the loading or the engine raised."""

    @abstractmethod
    def drop(self) -> None:
        """Called where the thread is closed before there is a result."""


class AnsweringThread:
    """Steps the driver of an answerer; what is asked meanwhile joins the batch of the engine.

    The model is loaded, and tasks are made, in the thread too: tokenizers are not made for several.

    Attributes:
      failure: what loading or the engine raised; nobody is answered any more then.
    """

    def __init__(self, load: Callable[[], Answerer], after_step: Callable[[], None] = lambda: None):
        """A thread that waits for something to do.

        Args:
          load: reads the model; called once, when something is asked for the first time. What it
            raises is raised by each `ask`.
          after_step: called in the thread whenever something may have come for those who asked.
        """
        self._load, self._after_step = load, after_step
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._running: dict[int, Asked] = {}
        self._thread = threading.Thread(target=self._run, name="stair_jax", daemon=True)
        self._is_closed = False
        self.failure: BaseException | None = None
        self._thread.start()

    async def ask(self, make: Make) -> Any:
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
        asked = _Awaited(make)
        self.put(asked)
        return await asyncio.wrap_future(asked.answer)

    @property
    def num_running(self) -> int:
        """Tasks of the driver."""
        return len(self._running)

    def put(self, asked: Asked) -> None:
        """Asks something, from any thread."""
        assert not self._is_closed, "the thread was closed"
        self._queue.put(asked)

    def close(self) -> None:
        """Ends the thread; what is not answered is cancelled."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        answerer: Answerer | None = None
        while (asked := self._queue.get()) is not None:
            if self.failure is None:
                try:
                    answerer = answerer or self._load()
                    if not self._answer(answerer, asked):
                        return
                except BaseException as error:
                    # Of loading or of the engine, which is in no known state: nobody is answered.
                    self.failure = error
            if self.failure is not None:
                for each in (*self._running.values(), asked):
                    each.fail(self.failure)
                self._running.clear()
                self._after_step()

    def _answer(self, answerer: Answerer, first: Asked) -> bool:
        """Answers until nothing is left; returns whether the thread goes on."""
        driver = answerer.driver
        self._add(answerer, first)
        self._after_step()
        while self._running or not self._queue.empty():
            while not self._queue.empty():
                asked = self._queue.get()
                if asked is None:
                    driver.close()
                    for each in self._running.values():
                        each.drop()
                    self._after_step()
                    return False
                self._add(answerer, asked)
            for ticket in [t for t, asked in self._running.items() if asked.is_cancelled]:
                driver.cancel(ticket)
                del self._running[ticket]
            for finished in driver.step() if driver.pending else ():
                self._running.pop(finished.ticket).finish(finished.result)
            self._after_step()
        return True

    def _add(self, answerer: Answerer, asked: Asked) -> None:
        if asked.is_cancelled:
            return
        try:
            task = asked.make(answerer)
        except Exception as error:  # of this one alone, such as a chat that the template refuses
            asked.fail(error)
            return
        try:
            ticket = answerer.driver.add(task, asked.priority, asked.on_tokens)
        except UserError as error:  # the engine refuses a request of it
            asked.fail(error)
            return
        self._running[ticket] = asked


class _Awaited(Asked):
    """What a coroutine waits for, as a future."""

    def __init__(self, make: Make):
        self._make = make
        self.answer: Future[Any] = Future()

    @property
    def is_cancelled(self) -> bool:
        return self.answer.cancelled()

    def make(self, answerer: Answerer) -> Task[Any]:
        return self._make(answerer)

    def finish(self, result: Any) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done() and self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)

    def drop(self) -> None:
        self.answer.cancel()
