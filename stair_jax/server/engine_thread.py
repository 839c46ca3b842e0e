"""The one thread that owns the model and its driver, as the coroutines of a server ask it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

from stair_jax.closing import Closing
from stair_jax.decoding.task import Task
from stair_jax.run.answering import Answerer
from stair_jax.run.answering_thread import AnsweringThread, Asked, Make
from stair_jax.server.errors import ApiError

T = TypeVar("T")
# Between two deliveries, for each task that runs: sending a piece takes Python about a third of it.
_SECONDS_A_TASK = 0.0004


class Event(NamedTuple):
    """What came of one of the tasks of a stream.

    Attributes:
      choice: number of the task.
      tokens: ids that were sampled since the last event of the task.
      logps: of these.
      is_last: whether no other event of the task follows: it has a result, or has failed.
      result: of the task.
      error: what made it fail; None: nothing.
    """

    choice: int
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()
    is_last: bool = False
    result: Any = None
    error: BaseException | None = None


class EngineThread(Closing):
    """Runs tasks for coroutines of one event loop."""

    def __init__(self, answerer: Answerer):
        """A thread that waits for something to do; it alone uses the model from now on."""
        self._outbox: list[tuple[Stream, Event]] = []
        self._delivered = 0.0
        self._streams: set[Stream] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = AnsweringThread(lambda: answerer, self._after_step)

    def asking(self, makes: Sequence[Make], priority: int = 0, streams: bool = False) -> "Stream":
        """Asks several tasks, side by side.

        Args:
          makes: of each task, how it is made; called in the thread.
          priority: see `Driver.add`.
          streams: whether tokens are wanted as they are sampled; else only the results.

        Returns:
          what they bring. Where its block ends, so do tasks that are not done.
        """
        self._loop = asyncio.get_running_loop()
        stream = Stream(len(makes), self._streams)
        for number, make in enumerate(makes):
            self._thread.put(_Choice(self, stream, number, make, priority, streams))
        return stream

    async def ask(self, make: Make, priority: int = 0) -> Any:
        """The result of one task; where the coroutine is cancelled, so is the task."""
        with self.asking([make], priority) as stream:
            async for event in stream:
                if event.error is not None:
                    raise event.error
                return event.result

    async def call(self, function: Callable[[Answerer], T]) -> T:
        """What a function of the model returns, called in the thread between two steps."""
        result: T = await self.ask(lambda answerer: _Known(function(answerer)))
        return result

    @property
    def num_open(self) -> int:
        """Tasks that are asked and not done."""
        return sum(stream.num_open for stream in self._streams)

    def abort(self, error: Exception) -> None:
        """Makes all that is asked fail; to be called in the loop."""
        for stream in self._streams:
            stream.abort(error)

    @property
    def failure(self) -> BaseException | None:
        """What the engine raised, which is then in no known state; None: it works."""
        return self._thread.failure

    def close(self) -> None:
        """Ends the thread; what is not answered is cancelled."""
        self._thread.close()

    def send(self, stream: "Stream", event: Event) -> None:
        """Called in the thread: what is delivered after this step."""
        self._outbox.append((stream, event))

    def _after_step(self) -> None:
        """Delivers what came, but not so often that sending it would keep the engine waiting."""
        running, now = self._thread.num_running, time.monotonic()
        if not self._outbox or (running and now - self._delivered < running * _SECONDS_A_TASK):
            return
        self._delivered = now
        outbox, self._outbox = self._outbox, []
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, outbox)


class Stream:
    """What tasks bring, as an asynchronous iterator of events; to be used in a `with` block."""

    def __init__(self, count: int, streams: "set[Stream]"):
        """Made by `EngineThread.asking`; it is one of the `streams` up to its end."""
        self._events: deque[Event] = deque()
        self._has_come = asyncio.Event()
        self._is_open = [True] * count
        self._streams = streams
        streams.add(self)

    @property
    def num_open(self) -> int:
        """Tasks that are not done."""
        return sum(self._is_open)

    def is_cancelled(self, choice: int) -> bool:
        """Whether nobody waits for a task any more."""
        return not self._is_open[choice]

    def cancel(self, choice: int) -> None:
        """Ends a task; no event of it follows."""
        self._is_open[choice] = False
        self._events = deque(event for event in self._events if event.choice != choice)
        self._has_come.set()

    def put(self, event: Event) -> None:
        """Called in the loop of the events: what a task brought."""
        if not self._is_open[event.choice]:
            return
        if self._events and not event.is_last:
            last = self._events[-1]
            if last.choice == event.choice:  # nobody has looked meanwhile
                event = Event(event.choice, last.tokens + event.tokens, last.logps + event.logps)
                self._events.pop()
        self._events.append(event)
        self._has_come.set()

    def abort(self, error: Exception) -> None:
        """Makes the tasks that are not done fail."""
        for choice, is_open in enumerate(self._is_open):
            if is_open:
                self.put(Event(choice, is_last=True, error=error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_open = [False] * len(self._is_open)
        self._streams.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if not any(self._is_open):
                raise StopAsyncIteration
            self._has_come.clear()
            await self._has_come.wait()
        event = self._events.popleft()
        if event.is_last:
            self._is_open[event.choice] = False
        return event


class _Known(Task[T]):
    """A task that is done before it asks anything."""

    def __init__(self, result: T):
        self.result = result

    def start(self) -> list[Any]:
        return []

    def receive(self, completion: Any) -> list[Any]:
        raise AssertionError("nothing was asked")


class _Choice(Asked):
    """A task of a stream."""

    def __init__(
        self,
        thread: EngineThread,
        stream: Stream,
        number: int,
        make: Make,
        priority: int,
        streams: bool,
    ):
        self._send, self._stream, self._number, self._make = thread.send, stream, number, make
        self.priority = priority
        self.on_tokens = self._hear if streams else None

    @property
    def is_cancelled(self) -> bool:
        return self._stream.is_cancelled(self._number)

    def make(self, answerer: Answerer) -> Task[Any]:
        return self._make(answerer)

    def finish(self, result: Any) -> None:
        self._send(self._stream, Event(self._number, is_last=True, result=result))

    def fail(self, error: BaseException) -> None:
        self._send(self._stream, Event(self._number, is_last=True, error=error))

    def drop(self) -> None:
        self.fail(ApiError(503, "the server ends", code="shutting_down"))

    def _hear(
        self, id: tuple[Hashable, ...], tokens: tuple[int, ...], logps: tuple[float, ...]
    ) -> None:
        self._send(self._stream, Event(self._number, tokens, logps))


def _deliver(outbox: list[tuple[Stream, Event]]) -> None:
    for stream, event in outbox:
        stream.put(event)
