"""One program of a process a machine: started, watched, started again where it lost a machine."""

import os
import re
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from stair_jax.cluster.host import Host, HostLost
from stair_jax.cluster.hosts import Hosts
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.stopping import Stopped, heed

_PAUSE = 0.2  # seconds between two looks at the processes
_GRACE = 90.0  # seconds for the others to end after one has; their watchdog takes at most 60
_SAVING = 600.0  # seconds for a step and a checkpoint, when the driver is told to stop
_MOST_FRUITLESS = 3
_KEPT_LINES = 40  # of a process, for its traceback
# The line with which a process of ours ends, and in it what happened.
_LAST_WORDS = re.compile(
    r"stair_jax: (?:process \d+ of \d+: )?(?:error: )?"
    r"(?P<text>.*?)(?:[:;] the same command goes on where it stopped)?"
)
_IS_LAST = re.compile(r"stair_jax: (process \d+ of \d+\b|error:|terminated:|interrupted:)")


@dataclass(frozen=True)
class Program:
    """What is run.

    Attributes:
      name: for messages.
      words: of the command, behind the name of the Python interpreter.
      mark: says how far the program is; it changes whenever something was finished for good.
      hosts: number of machines; 0: all that are there.
    """

    name: str
    words: Sequence[str]
    mark: Callable[[], object]
    hosts: int = 0


def run_program(program: Program, hosts: Hosts) -> None:
    """Runs a program to its end, on the machines that are there each time that it starts.

    Args:
      program: goes on where it stopped when it is started again.
      hosts: where its processes are.

    Raises:
      UserError: the program ended with one; or it ended again and again and got nowhere.
      RuntimeError: the program failed by a fault of its own.
      Stopped: this process was told to stop; the program has saved before.
    """
    before, fruitless = program.mark(), 0
    while True:
        try:
            processes = _start(program, hosts.take(program.hosts))
            _watch(processes)
            lost = _why_lost(program, processes)
        except HostLost as error:
            lost = str(error)
        finally:
            hosts.give_back()
        if lost is None:
            return
        now = program.mark()
        fruitless = 0 if now != before else fruitless + 1
        before = now
        if fruitless == _MOST_FRUITLESS:
            raise UserError(
                f"{program.name}: ended {fruitless} times one after another without a new "
                f"checkpoint: {lost}; a machine may lack memory, or checkpoint_every is too large"
            )
        say(f"{program.name}: {lost}; it starts again on the machines that are there")


@dataclass
class _Process:
    """A process of a program, as far as it is known."""

    host: Host
    index: int
    status: int | None = None
    lost: str = ""  # why its machine is out of reach
    last_words: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    @property
    def is_over(self) -> bool:
        return self.status is not None or bool(self.lost)

    @property
    def has_failed(self) -> bool:
        return bool(self.status) or bool(self.lost)

    def look(self) -> None:
        """Takes in what the process said; the first one speaks for all."""
        try:
            seen = self.host.look()
        except HostLost as error:
            self.lost = str(error)
            return
        for line in seen.lines:
            if _IS_LAST.match(line):
                self.last_words = line
                continue
            self.lines.append(line)
            if self.index == 0:
                print(line, file=sys.stderr, flush=True)
        self.status = seen.status

    @property
    def speaks_for_itself(self) -> bool:
        """Whether its last words are about itself."""
        return bool(re.match(rf"stair_jax: process {self.index} of \d+: ", self.last_words))

    def why(self) -> str:
        """Why it ended, in a few words."""
        if match := _LAST_WORDS.fullmatch(self.last_words):
            return match["text"]
        if self.status is not None and self.status < 0:
            return f"process {self.index} was ended by signal {-self.status}"
        return self.lost or f"process {self.index} ended with exit status {self.status}"


def _start(program: Program, hosts: Sequence[Host]) -> list[_Process]:
    """A process on each machine, which find each other by the address of the first one."""
    together: list[str] = []
    environment: dict[str, str] = {}
    if len(hosts) > 1:
        address = f"{hosts[0].name}:{hosts[0].free_port()}"
        together = [f"--coordinator={address}", f"--num_processes={len(hosts)}"]
        environment["STAIR_TOKEN"] = secrets.token_hex(32)
    for index, host in enumerate(hosts):
        own = [*together, f"--process_id={index}"] if together else []
        host.start([*program.words, *own], environment, os.getcwd())
    return [_Process(host, index) for index, host in enumerate(hosts)]


def _watch(processes: Sequence[_Process]) -> None:
    """Returns when all have ended; or some time after one has failed, as then none gets on."""
    try:
        _until_over(processes, lambda: any(each.has_failed for each in processes), _GRACE)
    except Stopped:
        for process in processes:
            with suppress(HostLost):
                process.host.send(signal.SIGTERM)
        _until_over(processes, lambda: True, _SAVING)
        raise


def _until_over(
    processes: Sequence[_Process], is_ending: Callable[[], bool], seconds: float
) -> None:
    """Waits for the ends of all; no longer than so many seconds once it comes to an end."""
    since: float | None = None
    while True:
        heed()
        for process in processes:
            if not process.is_over:
                process.look()
        if all(process.is_over for process in processes):
            return
        if since is None and is_ending():
            since = time.monotonic()
        if since is not None and time.monotonic() - since > seconds:
            return
        time.sleep(_PAUSE)


def _why_lost(program: Program, processes: Sequence[_Process]) -> str | None:
    """Why the program is to be started again; None: it is done.

    Raises:
      UserError: a process ended with one.
      RuntimeError: a process failed by a fault of its own.
    """
    # Others repeat what the process says that failed itself.
    for process in sorted(processes, key=lambda process: not process.speaks_for_itself):
        if process.status == 2:
            raise UserError(process.why())
        if process.status == 1:
            said = "\n".join(process.lines)
            where = f"process {process.index} of {program.name} on {process.host.name}"
            raise RuntimeError(f"{where} failed: {process.why()}\n{said}")
    failed = [process for process in processes if process.has_failed]
    # A process that was lost itself says less than those that saw it.
    failed.sort(key=lambda process: not process.last_words)
    return failed[0].why() if failed else None
