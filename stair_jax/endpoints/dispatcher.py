"""Which call goes next, and what becomes of its outcome. Runs in the event loop of a service."""

import asyncio
import datetime
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from stair_jax.endpoints.cap import Cap
from stair_jax.endpoints.chat import (
    ChatCompletion,
    ChatRequest,
    Usage,
    identity,
    most_usage,
    request_body,
)
from stair_jax.endpoints.client import Fault, Outcome, RateLimited
from stair_jax.endpoints.ledger import Ledger, lost_record, reply_record
from stair_jax.endpoints.replies import Reply
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.endpoints.stats import EndpointStats
from stair_jax.endpoints.throttle import Throttle
from stair_jax.errors import UserError
from stair_jax.monitoring import duration, say

_LONGEST_WAIT = 60.0  # seconds between two calls of one request, unless the endpoint asks for more
_LONG_PAUSE = 30.0  # seconds that are worth a line


class Client(Protocol):
    """What is asked: `ChatClient`."""

    async def ask(self, body: dict[str, Any]) -> Outcome: ...


@dataclass(eq=False)
class Job:
    """One call to make, for all requests of the same content.

    Attributes:
      identity: of the call.
      body: of the call.
      most: tokens that it can use at most.
      order: the lowest goes first.
      wants_logprobs: whether log-probabilities are asked for.
      tickets: of the requests; empty when all were cancelled.
      tries: calls that ended with a fault.
    """

    identity: str
    body: dict[str, Any]
    most: Usage
    order: tuple[int, int]
    wants_logprobs: bool
    tickets: list[int] = field(default_factory=list)
    tries: int = 0


@dataclass(frozen=True)
class _Entry:
    """A record that is to be written, its job and its reply (None: the call was lost)."""

    record: dict[str, Any]
    job: Job
    cost: float
    usage: Usage = field(default_factory=Usage)
    reply: Reply | None = None


class Dispatcher:
    """Starts calls as throttle and cap allow, writes their replies down, and then delivers them.

    All methods are to be called in the event loop.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        ledger: Ledger,
        client: Client,
        deliver: Callable[[int, ChatCompletion], None],
        fail: Callable[[Exception], None],
        stats: EndpointStats,
    ):
        """A dispatcher without requests.

        Args:
          settings: of the endpoint.
          ledger: of the replies.
          client: that is asked.
          deliver: called with a request's ticket and its completion (without the request's id).
          fail: called once with what stops everything; calls under way still end.
          stats: to count in.
        """
        self._settings, self._ledger, self._client = settings, ledger, client
        self._deliver, self._fail, self._stats = deliver, fail, stats
        self._throttle = Throttle(settings.concurrency)
        self._cap = Cap(settings, ledger.calls, ledger.cost)
        self._loop = asyncio.get_running_loop()
        self._ready: list[tuple[tuple[int, int], Job]] = []  # a heap
        self._jobs: dict[str, Job] = {}  # by identity: ready, waiting, or under way
        self._job_of: dict[int, Job] = {}  # by ticket
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: list[_Entry] = []
        self._num_unwritten = 0  # with those that are being written
        self._to_write = asyncio.Event()
        self._is_stopped = self._is_closing = False
        self._missing_in_a_row = 0
        self._refused_since: float | None = None  # the first refusal since the last reply
        self._said_at = -_LONGEST_WAIT
        self._jitter = random.Random()  # of waits: no result depends on it
        self._writer = self._loop.create_task(self._write_down())

    def add(self, ticket: int, request: ChatRequest) -> None:
        """Takes a request; its completion is delivered under `ticket`."""
        if self._is_stopped:
            return
        body = request_body(request, self._settings)
        key = identity(body, self._settings.endpoint, request.sample)
        if key in self._ledger:
            reply, cost = self._ledger.get(key)
            self._give(ticket, reply, reply.usage or Usage(), cost, from_log=True)
            return
        if (job := self._jobs.get(key)) is not None:
            job.tickets.append(ticket)
            self._job_of[ticket] = job
            # In a batch of an earlier start these were not known.
            job.body, job.wants_logprobs = body, request.top_logprobs > 0
            return
        most, order = most_usage(request, self._settings), (request.priority, ticket)
        job = Job(key, body, most, order, request.top_logprobs > 0, [ticket])
        self._jobs[key] = self._job_of[ticket] = job
        self._queue(job)
        self._pump()

    def drop(self, ticket: int) -> None:
        """Forgets a request. A call under way ends all the same: it is paid, so it is kept."""
        job = self._job_of.pop(ticket, None)
        if job is not None:
            job.tickets.remove(ticket)

    async def close(self, seconds: float) -> None:
        """Starts nothing more, waits so long for calls under way, and writes down what there is."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_closing = True
        self._to_write.set()
        await self._writer

    def stop(self, error: Exception) -> None:
        """Starts nothing more, and reports `error`."""
        if not self._is_stopped:
            self._is_stopped = True
            self._fail(error)

    def _queue(self, job: Job) -> None:
        heapq.heappush(self._ready, (job.order, job))

    def _pump(self) -> None:
        """Starts what may start now; called whenever that may have changed."""
        try:
            self._start_calls()
        except Exception as error:  # in a callback of the loop nobody would see it
            self.stop(error)

    def _start_calls(self) -> None:
        while self._ready and not self._is_stopped:
            job = self._ready[0][1]
            if not job.tickets:  # all of its requests were cancelled
                heapq.heappop(self._ready)
                del self._jobs[job.identity]
                continue
            # Replies that wait for the disk count too: a killed run pays for no more than these.
            if self._cap.in_flight >= self._settings.concurrency:
                return
            if not self._throttle.may_start(self._loop.time()):
                self._wake(self._throttle.paused_until)
                return
            if not self._cap.fits(job.most):
                if not self._cap.in_flight:
                    self.stop(self._cap_is_reached())
                return
            heapq.heappop(self._ready)
            self._start(job)

    def _wake(self, time: float) -> None:
        """Sees to it that `_pump` runs at `time`, unless a call that ends does so before."""
        if self._timer is None and time > self._loop.time():
            self._timer = self._loop.call_at(time, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _start(self, job: Job) -> None:
        self._cap.reserve(job.most)
        task = self._loop.create_task(self._call(job, self._throttle.start()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, job: Job, start: int) -> None:
        try:
            outcome = await self._client.ask(job.body)
        except asyncio.CancelledError:
            self._throttle.fail()
            self._lose(job, "the run ended")
            raise
        except Exception as error:  # a UserError; anything else is shown as a fault of ours
            self._throttle.fail()
            self._cap.release(job.most)
            self.stop(error)
            return
        try:
            self._handle(job, start, outcome)
            self._pump()
        except Exception as error:
            self.stop(error)

    def _handle(self, job: Job, start: int, outcome: Outcome) -> None:
        if isinstance(outcome, Reply):
            self._throttle.succeed()
            self._missing_in_a_row, self._refused_since = 0, None
            self._keep(job, outcome)
        elif isinstance(outcome, RateLimited):
            self._refuse(job, start, outcome.wait)
        else:
            self._throttle.fail()
            self._retry(job, outcome)

    def _keep(self, job: Job, reply: Reply) -> None:
        """Hands a reply to the writer."""
        if not reply.date:
            reply = replace(reply, date=datetime.datetime.now(datetime.UTC).date().isoformat())
        usage = reply.usage or job.most
        cost = self._settings.cost(usage.input_tokens, usage.output_tokens)
        self._stats.without_usage += reply.usage is None
        record = reply_record(job.identity, reply, usage, cost)
        self._write(_Entry(record, job, cost, usage, reply))

    def _lose(self, job: Job, why: str) -> None:
        """Hands the record of a call without a reply, which may have been paid, to the writer."""
        cost = self._cap.most(job.most)
        self._stats.lost += 1
        self._write(_Entry(lost_record(job.identity, why, cost), job, cost))

    def _refuse(self, job: Job, start: int, wait: float | None) -> None:
        """A refusal for the rate: the request waits for its turn again, and no try is counted."""
        now = self._loop.time()
        self._throttle.refuse(start, now, wait, self._jitter.uniform(0.5, 1.5))
        self._cap.release(job.most)
        self._stats.refused += 1
        self._queue(job)
        self._refused_since = now if self._refused_since is None else self._refused_since
        pause, patience = self._throttle.paused_until - now, self._settings.patience
        if now + pause - self._refused_since > patience:
            since = duration(now - self._refused_since)
            self.stop(
                UserError(
                    f"{self._settings.endpoint} refuses all calls for its rate (429) since {since} "
                    f"and wants another {duration(pause)}, more than patience={patience:g} s: run "
                    "the same command later, it goes on"
                )
            )
        elif pause > _LONG_PAUSE and now - self._said_at >= _LONGEST_WAIT:
            self._said_at = now
            say(f"endpoint: asked to wait for {duration(pause)} (429)")

    def _retry(self, job: Job, fault: Fault) -> None:
        """A fault: the request is asked again later, or its completion is missing."""
        self._stats.faults += 1
        job.tries += 1
        if fault.is_paid:
            self._lose(job, fault.why)
        else:
            self._cap.release(job.most)
        if job.tries < self._settings.tries:
            wait = min(self._settings.retry_seconds * 2.0 ** (job.tries - 1), _LONGEST_WAIT)
            wait *= self._jitter.uniform(0.5, 1.5)
            wait = max(wait, min(fault.wait or 0.0, self._settings.patience))
            self._loop.call_later(wait, self._queue_again, job)
            return
        self._missing_in_a_row += 1
        for ticket in self._close(job):
            self._stats.missing += 1
            self._deliver(ticket, ChatCompletion(None, finish="missing"))
        if 0 < self._settings.give_up_after <= self._missing_in_a_row:
            self.stop(
                UserError(
                    f"{self._settings.endpoint} gave no reply to {self._missing_in_a_row} requests "
                    f"in a row, {job.tries} calls each (the last: {fault.why}): see base_url and "
                    "the server, or raise give_up_after"
                )
            )

    def _queue_again(self, job: Job) -> None:
        self._queue(job)
        self._pump()

    def _close(self, job: Job) -> list[int]:
        """Forgets a job that is done; returns the tickets of its requests."""
        del self._jobs[job.identity]
        for ticket in job.tickets:
            del self._job_of[ticket]
        return job.tickets

    def _write(self, entry: _Entry) -> None:
        self._unwritten.append(entry)
        self._num_unwritten += 1
        self._to_write.set()

    async def _write_down(self) -> None:
        """Writes what has come in while the last write went on, with one wait for the disk."""
        while not self._is_closing or self._unwritten:
            await self._to_write.wait()
            self._to_write.clear()
            entries, self._unwritten = self._unwritten, []
            try:
                await asyncio.to_thread(self._ledger.append, [entry.record for entry in entries])
                for entry in entries:
                    self._count(entry)
                self._num_unwritten -= len(entries)
                self._pump()
            except Exception as error:
                self.stop(error)
                return

    def _count(self, entry: _Entry) -> None:
        """What is on the disk counts, and goes to those who asked."""
        self._cap.settle(entry.job.most, entry.cost)
        self._stats.cost += entry.cost
        if entry.reply is None:
            return
        used = self._stats.usage
        self._stats.usage = Usage(
            used.input_tokens + entry.usage.input_tokens,
            used.output_tokens + entry.usage.output_tokens,
        )
        self._stats.replies += 1
        self._stats.filtered += entry.reply.finish == "content_filter"
        self._stats.too_long += entry.reply.finish == "too_long"
        has_text = entry.reply.finish in ("stop", "length")
        lacks = entry.job.wants_logprobs and has_text and not entry.reply.top_logprobs
        self._stats.without_logprobs += lacks
        for number, ticket in enumerate(self._close(entry.job)):
            self._give(ticket, entry.reply, entry.usage, entry.cost, from_log=number > 0)

    def _give(self, ticket: int, reply: Reply, usage: Usage, cost: float, from_log: bool) -> None:
        self._stats.from_log += from_log
        self._deliver(
            ticket,
            ChatCompletion(
                None,
                reply.text,
                reply.finish,
                usage,
                cost,
                reply.reasoning,
                reply.top_logprobs,
                from_log,
                reply.model,
                reply.date,
            ),
        )

    def _cap_is_reached(self) -> UserError:
        spent = f"{self._cap.calls:,} requests"
        if self._settings.input_price is not None:
            spent += f", {self._cap.cost:.4f}"
        return UserError(
            f"the cap of the endpoint is reached: {self._cap.describe()}; used: {spent}, and the "
            "next request may need more than is left: raise the cap, and the same command goes on "
            "without asking anything twice"
        )
