"""Runs that are stopped again and again, and compared with one that was left alone."""

import fcntl
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from soak.command import Command, Started
from soak.compare import differences, tree_ids
from soak.endings import problems
from soak.result import Result
from stair_jax.monitoring import Progress

_POLL = 0.005  # seconds between two looks at whether it is time
_STARTS = re.compile(r"^\[\d+ of \d+\] (\S+): starts$", re.MULTILINE)


class Moment(NamedTuple):
    """When a process gets a signal.

    Attributes:
        number: of the signal.
        is_time: asked again and again, until it is or the run has ended.
        words: says when, for a reader.
        process: that gets the signal.
        seed: with `--size 1`, draws this moment again.
        check: says what is not in order in the working folder once all have ended, a line each.
    """

    number: int
    is_time: Callable[[Started], bool]
    words: str
    process: int = 0
    seed: int = 0
    check: Callable[[Path], list[str]] = lambda workdir: []

    @property
    def name(self) -> str:
        """For a reader."""
        return f"{signal.Signals(self.number).name} to process {self.process} {self.words}"


@dataclass
class Restarts:
    """Runs of one command that are stopped at given moments.

    Attributes:
        command: of the runs.
        calm: working folder of a run that was left alone.
        folder: for the runs, `run0`, `run1`, ..., and what they said.
        result: gets counts, failures and the longest endings.
        copied: stages whose folders are taken from `calm`, so that the runs begin after them.
        patience: seconds in which all processes have to end after a signal.
    """

    command: Command
    calm: Path
    folder: Path
    result: Result
    copied: Sequence[str] = ()
    patience: float = 60.0

    def run(self, moments: Sequence[Moment], progress: Progress | None = None) -> None:
        """Runs until all moments have come, and each run to its end; each is then compared.

        A run that ends before its next moment leaves that to the next run.
        """
        left = deque(moments)
        while True:
            before = len(left)
            if not _Run(self, left, progress).to_end() or not left:
                break
            if len(left) == before:  # a whole run is too short for it
                self.result.counts["never came"] += 1
                left.popleft()
        if left:
            self.result.counts["not tried"] += len(left)


@dataclass
class _Run:
    """One run with all its starts."""

    setting: Restarts
    left: deque[Moment]
    progress: Progress | None
    stops: list[Moment] = field(default_factory=list)

    def to_end(self) -> bool:
        """Starts until the run is finished; False where it failed."""
        setting = self.setting
        self._workdir = setting.folder / f"run{setting.result.counts['runs']}"
        setting.result.counts["runs"] += 1
        for stage in setting.copied:
            shutil.copytree(setting.calm / stage, self._workdir / stage)
        trees: set[str] = set()
        is_finished: bool | None = None
        while is_finished is None:
            is_finished = self._start_once()
            found = tree_ids(self._workdir)
            if lost := trees - found:
                self._fail(f"trees were lost: {', '.join(sorted(lost))}")
            trees |= found
            if is_locked(self._workdir):
                self._fail("the folder is still locked by a process that has ended")
        if is_finished:
            for difference in differences(setting.calm, self._workdir):
                self._fail(f"not as when left alone: {difference}")
        return is_finished

    def _start_once(self) -> bool | None:
        """One start: True where it finished the run, None where it was stopped, else False."""
        setting = self.setting
        label = f"start{len(self.stops)}"
        with setting.command.start(self._workdir, label) as started:
            while started.is_running and not (self.left and self.left[0].is_time(started)):
                time.sleep(_POLL)
            if not started.is_running:
                statuses = started.wait(setting.patience)
                if not any(statuses) and None not in statuses:
                    return True
                self._fail(f"ended with {statuses} without a signal: {started.said()[-300:]}")
                return False
            return self._stop(started)

    def _stop(self, started: Started) -> bool | None:
        moment = self.left.popleft()
        self.stops.append(moment)
        stage = (_STARTS.findall(started.said()) or ["no stage yet"])[-1]
        start = time.monotonic()
        started.send(moment.process, moment.number)
        before = started.said()
        statuses = started.wait(self.setting.patience)
        self._count(moment, stage, time.monotonic() - start)
        found = problems(moment.number, moment.process, statuses, started, before)
        for problem in [*found, *moment.check(self._workdir)]:
            self._fail(f"{moment.name}, in {stage}: {problem}")
        return True if set(statuses) == {0} else None

    def _count(self, moment: Moment, stage: str, seconds: float) -> None:
        result, name = self.setting.result, signal.Signals(moment.number).name
        result.counts.update(["stops", name, f"in {stage}"])
        figure = f"longest_ending_{name}_s"
        result.figures[figure] = max(result.figures.get(figure, 0.0), seconds)
        if self.progress is not None:
            self.progress.update(result.counts["stops"], failures=len(result.failures))

    def _fail(self, what: str) -> None:
        seed = self.stops[-1].seed if self.stops else 0
        stops = "; ".join(stop.name for stop in self.stops) or "never stopped"
        self.setting.result.fail(what, seed, f"{stops}; logs {self._workdir}.*.log")


def is_locked(workdir: Path) -> bool:
    """Whether some process holds the lock of a working folder."""
    path = workdir / ".lock"
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
