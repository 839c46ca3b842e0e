"""An endpoint as a service: requests in, completions out, the network in a thread of its own."""

import asyncio
import queue
import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_jax.closing import Closing
from stair_jax.endpoints.batch_client import BatchClient
from stair_jax.endpoints.batch_dispatcher import BatchDispatcher
from stair_jax.endpoints.batch_log import BatchLog
from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.endpoints.client import ChatClient, require_openai
from stair_jax.endpoints.dispatcher import Dispatcher
from stair_jax.endpoints.estimates import forecast
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.endpoints.stats import EndpointStats
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.stopping import heed

_GRACE = 2.0  # seconds that calls under way get when the service closes: they are paid
_LOOK = 0.5  # seconds between two looks at a stop signal while `step` waits


class EndpointService(Closing):
    """Sends chat requests to an endpoint and hands out the completions as they come.

    To be used from one thread, and closed at the end (or used as a context manager).

    Attributes:
      settings: of the endpoint.
      stats: counters; they change while calls are under way.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        ledger: str | Path,
        expected: int | None = None,
        where: str = "endpoint",
        examples: Sequence[ChatRequest] = (),
    ):
        """A service that has asked nothing yet.

        Args:
          settings: of the endpoint.
          ledger: file of the replies, of this run alone; the same file again, and nothing in it is
            asked again.
          expected: number of all requests to come, for what is said before the first call.
          where: place of the settings in the config, for messages.
          examples: requests like those to come, for what is said before the first call; empty:
            those that come first.

        Raises:
          UserError: no cap, address, model or key is given, the package openai is missing, the
            ledger cannot be read, or a batch is under way and the settings send none.
        """
        settings.check(where)
        require_openai()
        self.settings, self.stats = settings, EndpointStats()
        self._ledger, self._batches = Ledger(ledger), BatchLog(Path(ledger))
        if self._batches.open and not settings.batch.size:
            raise UserError(
                f"{where}.batch.size is 0, and a batch of an earlier start is under way: set it as "
                f"it was, and the same command waits for the results; or, if they are not wanted, "
                f"remove {self._batches.path}"
            )
        self._expected, self._examples = expected, examples
        self._tickets: dict[Hashable, int] = {}
        self._ids: dict[int, Hashable] = {}  # by ticket
        self._last_ticket = 0
        self._arrived: queue.SimpleQueue[tuple[int, ChatCompletion] | Exception] = (
            queue.SimpleQueue()
        )
        self._taken: list[ChatCompletion] = []  # arrived, and not handed out yet
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatcher: Dispatcher | None = None
        self._thread: threading.Thread | None = None
        self._is_ready, self._is_closed = threading.Event(), False
        self._leave: asyncio.Event | None = None

    @property
    def pending(self) -> int:
        """Requests that were submitted, and neither completed nor cancelled."""
        return len(self._tickets)

    @property
    def calls(self) -> int:
        """Calls that may have been paid, those of earlier starts included."""
        return self._ledger.calls

    @property
    def cost(self) -> float:
        """Money for them."""
        return self._ledger.cost

    def submit(self, requests: Iterable[ChatRequest]) -> None:
        """Adds requests; returns at once.

        Raises:
          ValueError: a request has the id of a pending one, or the service is closed.
        """
        requests = list(requests)
        if self._is_closed:
            raise ValueError("the service is closed")
        if not requests:
            return
        if self._thread is None:
            examples = self._examples or requests
            say(forecast(self.settings, self._ledger, examples, self._expected))
            self._start()
        batch = [(self._ticket(request.id), request) for request in requests]
        self.stats.requests += len(batch)
        self._in_loop(self._add, batch)

    def step(self, wait: float = 0.0) -> list[ChatCompletion]:
        """The completions that have come in, in the order in which they came.

        Args:
          wait: seconds to wait for the first one, if there is none yet and one is pending.

        Raises:
          UserError: the endpoint will not answer, the cap is reached, or a reply cannot be written
            to the disk. Completions that came before are handed out first.
        """
        heed()
        completions = self._take_all()
        while not completions and self._tickets and wait > 0 and self._error is None:
            heed()
            self._wait(min(wait, _LOOK))
            wait -= _LOOK
            completions = self._take_all()
        if not completions and self._error is not None:
            raise self._error
        return completions

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Forgets requests; unknown ids are passed over. Calls under way are still written down."""
        tickets = [self._tickets.pop(id) for id in ids if id in self._tickets]
        for ticket in tickets:
            del self._ids[ticket]
        if tickets:
            self._in_loop(self._drop, tickets)

    def report(self) -> str:
        """What was asked and spent, in one line."""
        stats, ledger = self.stats, self._ledger
        parts = [
            f"{stats.replies:,} replies",
            f"{stats.from_log:,} from the log",
            f"{stats.missing:,} missing",
            f"{stats.filtered:,} refused by the content filter",
            f"{stats.usage.input_tokens:,} tokens in, {stats.usage.output_tokens:,} out",
        ]
        if self.settings.input_price is not None:
            parts.append(f"cost {stats.cost:.4g}, {ledger.cost:.4g} with earlier starts")
        if stats.without_logprobs:
            parts.append(f"{stats.without_logprobs:,} without log-probabilities")
        return f"endpoint: {', '.join(parts)}"

    def close(self) -> None:
        """Ends the thread. Calls under way get a moment to arrive and are written down."""
        self._is_closed = True
        if self._thread is None or self._loop is None:
            return
        if self._thread.is_alive() and self._leave is not None:
            self._in_loop(self._leave.set)
        self._thread.join()
        self._tickets.clear()
        self._ids.clear()

    def _ticket(self, id: Hashable) -> int:
        """A number for a request. Ids may come again after a request is cancelled; these do not."""
        if id in self._tickets:
            raise ValueError(f"request {id!r} is pending already")
        self._last_ticket += 1
        self._tickets[id], self._ids[self._last_ticket] = self._last_ticket, id
        return self._last_ticket

    def _wait(self, seconds: float) -> None:
        """Waits until something arrives, and puts it where `_take_all` looks."""
        try:
            self._receive(self._arrived.get(timeout=seconds))
        except queue.Empty:
            return

    def _take_all(self) -> list[ChatCompletion]:
        """What has arrived of requests that are still wanted."""
        while True:
            try:
                self._receive(self._arrived.get_nowait())
            except queue.Empty:
                break
        taken, self._taken = self._taken, []
        return taken

    def _receive(self, item: tuple[int, ChatCompletion] | Exception) -> None:
        if isinstance(item, Exception):
            self._error = self._error or item
            return
        ticket, completion = item
        if ticket in self._ids:
            id = self._ids.pop(ticket)
            del self._tickets[id]
            self._taken.append(replace(completion, id=id))

    # What follows runs in the thread of the event loop, but for `_start` and `_in_loop`.

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def _in_loop(self, function: Any, *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended: `step` says why
            return

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._arrived.put(error)
        finally:
            self._is_ready.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        self._leave = asyncio.Event()
        client, self._dispatcher = self._make_dispatcher()
        self._is_ready.set()
        await self._leave.wait()
        await self._dispatcher.close(_GRACE)
        await client.close()

    def _make_dispatcher(self) -> tuple[ChatClient, Dispatcher]:
        """What asks, by calls or by batches; to be made in the loop."""
        own, ledger, fail = self.settings, self._ledger, self._arrived.put
        if own.batch.size:
            batches = BatchClient(own)
            return batches, BatchDispatcher(
                own, ledger, batches, self._deliver, fail, self.stats, self._batches
            )
        client = ChatClient(own)
        return client, Dispatcher(own, ledger, client, self._deliver, fail, self.stats)

    def _deliver(self, ticket: int, completion: ChatCompletion) -> None:
        self._arrived.put((ticket, completion))

    def _add(self, batch: list[tuple[int, ChatRequest]]) -> None:
        assert self._dispatcher is not None
        try:
            for ticket, request in batch:
                self._dispatcher.add(ticket, request)
        except Exception as error:
            self._dispatcher.stop(error)

    def _drop(self, tickets: list[int]) -> None:
        assert self._dispatcher is not None
        for ticket in tickets:
            self._dispatcher.drop(ticket)
