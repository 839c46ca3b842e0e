"""Runs a list of jobs: several at a time, each as soon as what it waits for has ended.

A job that is done is not run again, so that the same list goes on where it stopped. One that fails
does not end the others: those that need it are skipped, and said to be.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stair_jax.monitoring import duration, say
from stair_jax.run import job_process
from stair_jax.run.job_list import Jobs, Kind, in_order, path_seconds
from stair_jax.run.job_places import Place, free_place
from stair_jax.stopping import heed

_ERROR = "stair_jax: error: "  # in front of what a command says of a user's mistake
_POLL = 0.3  # seconds between two looks at the jobs
_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # exit status of a job that was asked to stop


class Process(Protocol):
    """A job that runs, see `job_process.JobProcess`."""

    def poll(self) -> int | None:
        """Its exit status; None: it runs."""

    def send(self, number: int) -> None:
        """Sends a signal."""

    def kill(self) -> None:
        """Ends it at once."""


# (command, place, log): starts a process; None: an earlier one of this job has not ended.
Start = Callable[[Sequence[str], Place, Path], Process | None]


@dataclass
class _Running:
    place: Place
    process: Process
    began: float
    is_told: bool = False  # to stop


@dataclass
class Outcome:
    """How a list of jobs went.

    Attributes:
      done: seconds of all starts of each job that is done, also before.
      failed: what each job that failed said last.
      skipped: of each job that was skipped, the failed one that it needs.
      left: jobs that were stopped, or not started, because the time was up.
    """

    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


class JobQueue:
    """A list of jobs on the places of a host."""

    def __init__(
        self,
        jobs: Jobs,
        places: Sequence[Place],
        program: Sequence[str],
        logs: Path,
        *,
        seconds: float | None = None,
        start: Start = job_process.start_job,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A queue, of which nothing runs yet.

        Args:
          jobs: as `job_list.by_name` gives them.
          places: of the host.
          program: Python and the words in front of those of a job.
          logs: folder of the logs and records.
          seconds: for which it may run; None: until all is done.
          start: of a process.
          clock: seconds that have passed.
          sleep: until the next look.
        """
        self._jobs, self._places, self._program, self._logs = jobs, places, program, logs
        self._start, self._clock, self._sleep = start, clock, sleep
        self._order = in_order(jobs)
        self._began, self._seconds = clock(), seconds
        self._running: dict[str, _Running] = {}
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Runs what is not done.

        Raises:
          KeyboardInterrupt: a signal asked to stop; the jobs were told, and have ended. A second
            one kills them.
          UserError: a log or record cannot be written.
        """
        self._read_records()
        try:
            while True:
                heed()
                self._collect()
                is_held = not self._is_up() and self._start_jobs()
                if not self._running and not is_held:
                    break
                if self._is_up() and self._running:
                    names = ", ".join(self._running)
                    say(f"the time is up, and asked to save and stop are: {names}")
                    self._stop()
                    break
                self._sleep(_POLL)
        except BaseException:  # also of a full disk: nothing of ours goes on behind us
            try:
                self._stop()
            except BaseException:
                self._kill()
                raise
            raise
        self._outcome.left = self._waiting()
        return self._outcome

    def _read_records(self) -> None:
        """Finds out what is done."""
        for name, job in self._jobs.items():
            seconds = job_process.finished_seconds(job, self._logs)
            if seconds is not None:
                self._outcome.done[name] = seconds
        waiting = len(self._waiting())
        say(f"jobs: {len(self._jobs)}, of which {len(self._outcome.done)} done, {waiting} to run")

    def _start_jobs(self) -> bool:
        """Starts what there is room for; whether a job has to wait for a process of its own."""
        is_held = False
        for name in self._order:
            if not self._is_ready(name):
                continue
            job = self._jobs[name]
            used = [each.place for each in self._running.values()]
            place = free_place(job.place, _less(self._places, used), self._places)
            if place is None or not self._fits(name):
                continue
            command = [*self._program, *job.all_words()]
            process = self._start(command, place, job_process.log_path(self._logs, job))
            if process is None:
                is_held = True
                continue
            self._running[name] = _Running(place, process, self._clock())
            say(f"{name}: started on {place.device}")
        return is_held

    def _is_ready(self, name: str) -> bool:
        """Whether a job waits for nothing but a place."""
        return self._is_waiting(name) and all(
            other in self._outcome.done
            or self._jobs[name].has_enough(other)
            or (other not in self._jobs[name].after and self._has_failed(other))
            for other in self._jobs[name].waits_for
        )

    def _is_waiting(self, name: str) -> bool:
        is_over = name in self._outcome.done or self._has_failed(name)
        return not is_over and name not in self._running

    def _has_failed(self, name: str) -> bool:
        return name in self._outcome.failed or name in self._outcome.skipped

    def _waiting(self) -> list[str]:
        return [name for name in self._order if self._is_waiting(name)]

    def _fits(self, name: str) -> bool:
        """Whether a job is to be started, so that it ends before the time is up.

        One that is longer than all the time would never be run: it saves, and goes on another time.
        """
        if self._seconds is None:
            return True
        expected = self._expected(name)
        return expected <= self._left_seconds() or expected > self._seconds

    def _left_seconds(self) -> float:
        assert self._seconds is not None
        return self._began + self._seconds - self._clock()

    def _is_up(self) -> bool:
        return self._seconds is not None and self._left_seconds() <= 0

    def _collect(self) -> None:
        """Takes note of jobs that have ended."""
        for name, running in list(self._running.items()):
            status = running.process.poll()
            if status is not None:
                del self._running[name]
                self._end(name, status, self._clock() - running.began)

    def _end(self, name: str, status: int, seconds: float) -> None:
        job = self._jobs[name]
        total = job_process.write_ended(job, self._logs, seconds, status == 0)
        if status == 0:
            self._outcome.done[name] = total
            say(f"{name}: done in {duration(seconds)}; {self._progress()}")
            return
        path = job_process.log_path(self._logs, job)
        said = job_process.last_line(path).removeprefix(_ERROR)
        reason = said or f"exit status {status}, see {path}"
        self._outcome.failed[name] = reason
        say(f"{name}: failed in {duration(seconds)} (exit status {status}): {reason}")
        self._skip(name)

    def _skip(self, failed: str) -> None:
        """Takes note of the jobs that need one that failed."""
        lost = {failed}
        for name, job in self._jobs.items():
            needed = [other for other in job.after if not job.has_enough(other)]
            if self._is_waiting(name) and lost.intersection(needed):
                lost.add(name)
                self._outcome.skipped[name] = failed
        if skipped := sorted(lost - {failed}):
            say(f"skipped, as {failed} failed: {', '.join(skipped)}")

    def _progress(self) -> str:
        text = f"{len(self._running)} running, {len(self._waiting())} waiting"
        seconds = self._seconds_to_go()
        return f"{text}, about {duration(seconds)} left" if seconds else text

    def _seconds_to_go(self) -> float:
        """An estimate: the most of the longest chain, and of the work of each kind of places."""
        left: dict[str, float] = {}
        work: dict[Kind, float] = {}
        kinds = Counter(place.kind for place in self._places)
        for name in [*self._running, *self._waiting()]:
            running = self._running.get(name)
            passed = self._clock() - running.began if running else 0.0
            left[name] = max(0.0, self._expected(name) - passed)
            kind = self._kind(name)
            work[kind] = work.get(kind, 0.0) + left[name]
        chain = path_seconds({n: self._jobs[n] for n in self._jobs if n in left}, left)
        return max([*chain.values(), *(work[kind] / kinds[kind] for kind in work)], default=0.0)

    def _expected(self, name: str) -> float:
        """The seconds of a job, by how long those were that are done on such a place."""
        own = [n for n in self._outcome.done if self._kind(n) == self._kind(name)]
        known = sum(self._jobs[n].seconds for n in own)
        pace = sum(self._outcome.done[n] for n in own) / known if known else 1.0
        return pace * self._jobs[name].seconds

    def _kind(self, name: str) -> Kind:
        """Of the places that a job runs on."""
        own = self._jobs[name].place
        return own if any(place.kind == own for place in self._places) else "cpu"

    def _stop(self) -> None:
        """Asks what runs to save and stop, and waits for it."""
        for running in self._running.values():
            if not running.is_told:
                running.is_told = True  # a second signal would cut its saving short
                running.process.send(signal.SIGTERM)
        while any(each.process.poll() is None for each in self._running.values()):
            self._sleep(_POLL)
        for name, running in list(self._running.items()):
            del self._running[name]
            status, seconds = running.process.poll() or 0, self._clock() - running.began
            if status in _STOPPED:
                job_process.write_ended(self._jobs[name], self._logs, seconds, is_done=False)
            else:
                self._end(name, status, seconds)

    def _kill(self) -> None:
        """Ends what runs at once."""
        for running in self._running.values():
            running.process.kill()


def _less(places: Sequence[Place], used: Sequence[Place]) -> list[Place]:
    """The places without those that are used; several may be alike."""
    left = list(places)
    for place in used:
        left.remove(place)
    return left
