"""Runs that are interrupted and restarted repeatedly, then compared with an undisturbed run."""

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

_POLL = 0.005  # seconds between two checks of a condition
_STARTS = re.compile(r"^\[\d+ of \d+\] (\S+): starts$", re.MULTILINE)


class Moment(NamedTuple):
    """When a process gets a signal.

    Attributes:
        number: of the signal.
        condition: polled; the signal is sent when it becomes true.
        words: the condition in words.
        process: index of the process that gets the signal.
        seed: reproduces a random moment with `--size 1`.
        check: of the working folder after all processes have ended; returns the problems found.
    """

    number: int
    condition: Callable[[Started], bool]
    words: str
    process: int = 0
    seed: int = 0
    check: Callable[[Path], list[str]] = lambda workdir: []

    @property
    def name(self) -> str:
        """Signal, process and condition in words."""
        return f"{signal.Signals(self.number).name} to process {self.process} {self.words}"


@dataclass
class Restarts:
    """Interrupts runs of one command at given moments.

    Attributes:
        command: that is run.
        undisturbed: working folder of an undisturbed run.
        folder: for the working folders `run0`, `run1`, ... and the logs.
        result: receives counts, failures and the longest time from signal to exit.
        copied: stages whose folders are copied from `undisturbed` before each run.
        patience: seconds within which all processes have to exit after a signal.
    """

    command: Command
    undisturbed: Path
    folder: Path
    result: Result
    copied: Sequence[str] = ()
    patience: float = 60.0

    def run(self, moments: Sequence[Moment], progress: Progress | None = None) -> None:
        """Runs until all signals are sent; each run is restarted until finished, then compared.

        A moment that a run does not reach is left for the next run.
        """
        left = deque(moments)
        while True:
            before = len(left)
            if not _Run(self, left, progress).to_end() or not left:
                break
            if len(left) == before:  # not even a run from the start reaches it
                self.result.counts["not reached"] += 1
                left.popleft()
        if left:
            self.result.counts["not tried"] += len(left)


@dataclass
class _Run:
    """One run: its first start and all restarts."""

    setting: Restarts
    left: deque[Moment]
    progress: Progress | None
    stops: list[Moment] = field(default_factory=list)

    def to_end(self) -> bool:
        """Restarts until the run is finished; returns False if it failed."""
        setting = self.setting
        self._workdir = setting.folder / f"run{setting.result.counts['runs']}"
        setting.result.counts["runs"] += 1
        for stage in setting.copied:
            shutil.copytree(setting.undisturbed / stage, self._workdir / stage)
        trees: set[str] = set()
        is_finished: bool | None = None
        while is_finished is None:
            is_finished = self._start_once()
            found = tree_ids(self._workdir)
            if lost := trees - found:
                self._fail(f"trees were lost: {', '.join(sorted(lost))}")
            trees |= found
            if is_locked(self._workdir):
                self._fail("the working folder is still locked after all processes have ended")
        if is_finished:
            for difference in differences(setting.undisturbed, self._workdir):
                self._fail(f"differs from the undisturbed run: {difference}")
        return is_finished

    def _start_once(self) -> bool | None:
        """One start; returns True if the run finished, None if it was interrupted, else False."""
        setting = self.setting
        label = f"start{len(self.stops)}"
        with setting.command.start(self._workdir, label) as started:
            while started.is_running and not (self.left and self.left[0].condition(started)):
                time.sleep(_POLL)
            if not started.is_running:
                statuses = started.wait(setting.patience)
                if not any(statuses) and None not in statuses:
                    return True
                self._fail(f"exited with {statuses} without a signal: {started.output()[-300:]}")
                return False
            return self._stop(started)

    def _stop(self, started: Started) -> bool | None:
        moment = self.left.popleft()
        self.stops.append(moment)
        stage = (_STARTS.findall(started.output()) or ["start-up"])[-1]
        start = time.monotonic()
        started.send(moment.process, moment.number)
        before = started.output()
        statuses = started.wait(self.setting.patience)
        self._count(moment, stage, time.monotonic() - start)
        found = problems(moment.number, moment.process, statuses, started, before)
        for problem in [*found, *moment.check(self._workdir)]:
            self._fail(f"{moment.name}, in {stage}: {problem}")
        return True if set(statuses) == {0} else None

    def _count(self, moment: Moment, stage: str, seconds: float) -> None:
        result, name = self.setting.result, signal.Signals(moment.number).name
        result.counts.update(["stops", name, f"in {stage}"])
        figure = f"longest_exit_after_{name}_s"
        result.figures[figure] = max(result.figures.get(figure, 0.0), seconds)
        if self.progress is not None:
            self.progress.update(result.counts["stops"], failures=len(result.failures))

    def _fail(self, what: str) -> None:
        seed = self.stops[-1].seed if self.stops else 0
        stops = "; ".join(stop.name for stop in self.stops) or "no signal"
        self.setting.result.fail(what, seed, f"{stops}; logs {self._workdir}.*.log")


def is_locked(workdir: Path) -> bool:
    """Whether a process holds the lock of a working folder."""
    path = workdir / ".lock"
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
