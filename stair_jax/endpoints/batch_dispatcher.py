"""Requests gathered into batches, which are followed to their end. As `Dispatcher`, in its loop."""

import asyncio
import heapq
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

from stair_jax.endpoints.batch_client import BatchClient, BatchState, Unreachable, request_line
from stair_jax.endpoints.batch_log import Batch, BatchLog
from stair_jax.endpoints.chat import ChatCompletion, ChatRequest
from stair_jax.endpoints.client import Fault, RateLimited
from stair_jax.endpoints.dispatcher import Dispatcher, Job
from stair_jax.endpoints.ledger import Ledger
from stair_jax.endpoints.replies import BadReply, Reply
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.endpoints.stats import EndpointStats
from stair_jax.errors import UserError
from stair_jax.monitoring import say

T = TypeVar("T")

_MOST_BYTES = 100_000_000  # of a file of requests; OpenAI takes 200 MB
_LINES = 20  # that say how far a batch is, about
_ROWS = 500  # results that are written down at once
_LOOK = 0.01  # seconds between two looks at the writer


class BatchDispatcher(Dispatcher):
    """Sends requests in batches, writes their replies down, and then delivers them.

    A batch is on the disk before it is sent, with its identities, so that a restart finds it at the
    endpoint and waits for it. What expired or failed in it goes into another one.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        ledger: Ledger,
        client: BatchClient,
        deliver: Callable[[int, ChatCompletion], None],
        fail: Callable[[Exception], None],
        stats: EndpointStats,
        log: BatchLog,
    ):
        """A dispatcher that waits for the batches of earlier starts.

        Args:
          settings: of the endpoint.
          ledger: of the replies.
          client: that is asked.
          deliver: see `Dispatcher`.
          fail: see `Dispatcher`.
          stats: see `Dispatcher`.
          log: of the batches.
        """
        super().__init__(settings, ledger, client, deliver, fail, stats)
        self._batches, self._log = client, log
        self._added = 0.0  # time of the last request
        self._is_due = False  # nothing has come in for a while
        self._collecting: set[asyncio.Task[None]] = set()  # those that read results
        for batch in tuple(log.open.values()):
            say(f"endpoint: a batch of {len(batch.most):,} requests of an earlier start is there")
            self._follow(batch, self._begun_before(batch), None)

    def add(self, ticket: int, request: ChatRequest) -> None:
        """See `Dispatcher`."""
        self._added = self._loop.time()
        super().add(ticket, request)

    async def close(self, seconds: float) -> None:
        """Leaves batches alone, which go on at the endpoint, but for results that are there."""
        for task in self._tasks - self._collecting:
            task.cancel()
        await super().close(seconds)

    def _begun_before(self, batch: Batch) -> list[Job]:
        """The jobs of a batch of an earlier start whose replies are not in the ledger yet."""
        jobs = []
        for id, most in batch.most.items():
            if id not in self._ledger and id not in self._jobs:
                # First of all, where they are asked again; no two orders are the same.
                self._jobs[id] = Job(id, {}, most, (0, -len(self._jobs)), False)
                self._cap.reserve(most)
                jobs.append(self._jobs[id])
        return jobs

    def _start_calls(self) -> None:
        """Sends what is ready, once a batch is full or nothing has come in for a while."""
        own = self._settings.batch
        while self._ready and not self._is_stopped and not self._collecting:
            if len(self._ready) < own.size and not self._is_due:
                # By the timer alone: requests that come together stay together.
                if self._timer is None:
                    until = self._added + own.gather_seconds
                    self._timer = self._loop.call_at(until, self._on_timer)
                return
            jobs, lines = self._take()
            if not jobs:
                if self._ready and not self._cap.in_flight:
                    self.stop(self._cap_is_reached())
                return
            batch = Batch({job.identity: job.most for job in jobs})
            self._follow(batch, jobs, b"".join(lines))

    def _on_timer(self) -> None:
        self._is_due = self._loop.time() >= self._added + self._settings.batch.gather_seconds
        super()._on_timer()
        self._is_due = False

    def _take(self) -> tuple[list[Job], list[bytes]]:
        """The next requests that fit into a batch and under the cap, and their lines."""
        jobs: list[Job] = []
        lines: list[bytes] = []
        size = 0
        while self._ready and len(jobs) < self._settings.batch.size:
            job = self._ready[0][1]
            if job.tickets:
                line = request_line(job.identity, job.body)
                size += len(line)
                if (jobs and size > _MOST_BYTES) or not self._cap.fits(job.most):
                    break
                self._cap.reserve(job.most)
                jobs.append(job)
                lines.append(line)
            else:  # all of its requests were cancelled
                del self._jobs[job.identity]
            heapq.heappop(self._ready)
        return jobs, lines

    def _follow(self, batch: Batch, jobs: Iterable[Job], lines: bytes | None) -> None:
        left = {job.identity: job for job in jobs}
        task = self._loop.create_task(self._run(batch, left, lines))
        self._tasks.add(task)
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        """A batch is over; what was waiting for its results to be read may start."""
        self._tasks.discard(task)
        self._collecting.discard(task)
        self._pump()

    async def _run(self, batch: Batch, jobs: dict[str, Job], lines: bytes | None) -> None:
        """A batch from its begin to its end; `lines` is None where it was begun before."""
        try:
            if not batch.id:
                id = await self._made(batch, lines)
                if not id:
                    await self._end(batch, "never sent")
                    self._again(jobs.values())
                    return
                batch = await asyncio.to_thread(self._log.name, batch, id)
            if jobs:
                await self._collect(batch, jobs, await self._wait(batch))
            else:  # an earlier start was killed behind the last result
                await self._end(batch, "all there")
        except Exception as error:
            self.stop(error)

    async def _made(self, batch: Batch, lines: bytes | None) -> str:
        """The id of a batch that was begun; "": an earlier start was killed before it sent it."""
        if lines is None:
            find = partial(self._batches.find, batch)
            if found := await self._patiently(find):
                return found
            # What was under way at the kill may arrive yet.
            await asyncio.sleep(self._settings.batch.poll_seconds)
            return await self._patiently(find)
        await asyncio.to_thread(self._log.begin, batch)
        tries = 0

        async def send() -> str:
            nonlocal tries
            tries += 1
            # A call that broke may have arrived.
            found = await self._batches.find(batch) if tries > 1 else ""
            return found or await self._batches.send(batch, lines)

        return await self._patiently(send)

    async def _wait(self, batch: Batch) -> BatchState:
        """The state of a batch at its end."""
        said, part = -1, max(1, len(batch.most) // _LINES)
        while True:
            state = await self._patiently(partial(self._batches.look, batch))
            if state.is_ended or said != (state.done + state.failed) // part:
                said = (state.done + state.failed) // part
                failed = f", {state.failed:,} failed" if state.failed else ""
                say(
                    f"endpoint: batch {batch.id} is {state.status}: {state.done:,} of "
                    f"{len(batch.most):,} requests done{failed}"
                )
            if state.is_ended:
                return state
            await asyncio.sleep(self._settings.batch.poll_seconds)

    async def _collect(self, batch: Batch, jobs: dict[str, Job], state: BatchState) -> None:
        """Writes the results down; what has none is asked again, in another batch."""
        refusals: list[UserError] = []
        if (task := asyncio.current_task()) is not None:
            self._collecting.add(task)
        for id in state.files:
            with tempfile.TemporaryFile() as place:
                await self._patiently(partial(self._batches.download, id, place))
                lines = iter(partial(place.readline, self._settings.max_reply_bytes), b"")
                while rows := list(islice(lines, _ROWS)):
                    for row in rows:
                        self._take_row(row, jobs, refusals)
                    await self._flush()
        for job in jobs.values():
            was_done = state.status == "completed"
            self._retry(job, Fault("no result in the batch", is_paid=was_done))
        await self._flush()
        if self._num_unwritten == 0:
            await self._end(batch, state.status)
        for error in [*refusals, *_objections(state, self._settings)][:1]:
            self.stop(error)

    def _take_row(self, row: bytes, jobs: dict[str, Job], refusals: list[UserError]) -> None:
        """What a line of results says of its job."""
        with suppress(BadReply):
            id, outcome = self._batches.outcome(row)
            if (job := jobs.pop(id, None)) is None:
                return
            if isinstance(outcome, Reply):
                self._missing_in_a_row = 0
                self._keep(job, outcome)
            elif isinstance(outcome, UserError):
                refusals.append(outcome)
                self._cap.release(job.most)
                self._close(job)
            else:
                assert not isinstance(outcome, RateLimited)
                self._retry(job, outcome)

    async def _flush(self) -> None:
        """Waits until all that has come is on the disk."""
        while self._num_unwritten and not self._writer.done():
            await asyncio.sleep(_LOOK)

    async def _end(self, batch: Batch, status: str) -> None:
        await asyncio.to_thread(self._log.end, batch, status)

    def _again(self, jobs: Iterable[Job]) -> None:
        """Requests that were never sent wait for another batch."""
        for job in jobs:
            self._cap.release(job.most)
            self._queue(job)
        self._added = self._loop.time()
        self._pump()

    def _queue_again(self, job: Job) -> None:
        self._added = self._loop.time()
        super()._queue_again(job)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer, as often as `tries`."""
        wait, why = self._settings.retry_seconds, ""
        for _ in range(self._settings.tries):
            try:
                return await ask()
            except (Unreachable, BadReply) as error:
                why = str(error)
                asked = error.wait if isinstance(error, Unreachable) else None
            await asyncio.sleep(max(wait, min(asked or 0.0, self._settings.patience)))
            wait = min(2.0 * wait, 60.0)
        raise UserError(
            f"{self._settings.endpoint} does not answer for its batches ({why}): see base_url and "
            "the server; the same command goes on"
        )


def _objections(state: BatchState, settings: EndpointSettings) -> list[UserError]:
    """Why a batch that ended is not followed by another one."""
    if state.status == "cancelled":
        return [
            UserError(
                f"a batch was cancelled at {settings.endpoint}: its replies are kept, and the same "
                "command asks for the others"
            )
        ]
    if state.status == "failed":
        said = f" ({state.error})" if state.error else ""
        return [
            UserError(
                f"{settings.endpoint} refuses the batch{said}: see model, batch.size and sampling"
            )
        ]
    return []
