"""A machine on which the driver has a process of a program, watches it and sends it signals."""

import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Protocol

from stair_jax.closing import Closing
from stair_jax.cluster.tied import tied

_MOST_LINES = 10_000  # that wait to be fetched; older ones are dropped
_LAST_OUTPUT = 5.0  # seconds until the output of a process that has ended is read


class HostLost(Exception):
    """A machine does not answer any more; the message says why."""


@dataclass(frozen=True)
class Look:
    """What became of a process since the last look at it.

    Attributes:
      lines: that it printed.
      status: with which it ended, negative for a signal; None: it runs.
    """

    lines: Sequence[str] = ()
    status: int | None = None


class Host(Protocol):
    """A machine that has at most one process; each method may raise `HostLost`."""

    @property
    def name(self) -> str:
        """Address of the machine, by which the others reach it."""

    def free_port(self) -> int:
        """A port on which nobody listens."""

    def start(self, words: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Starts Python with these words.

        Args:
          words: behind the name of the interpreter.
          environment: beside that of the machine.
          folder: to work in, where the machine has it.
        """

    def look(self) -> Look:
        """Whatever is known by now, without waiting for more."""

    def send(self, number: int) -> None:
        """Sends a signal to the process, if it runs."""


class ThisHost(Closing):
    """The machine of this object: a `Host`. The process ends with this one, however that ends."""

    name = "127.0.0.1"

    def __init__(self) -> None:
        """No process has been started."""
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._reader: threading.Thread | None = None

    def free_port(self) -> int:
        """As `Host.free_port`."""
        with socket.socket() as free:
            free.bind(("", 0))
            return int(free.getsockname()[1])

    def sees(self, file: str) -> bool:
        """Whether a file is there."""
        return os.path.isfile(file)

    def start(self, words: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """As `Host.start`."""
        self._process = subprocess.Popen(
            tied(words),
            cwd=folder if os.path.isdir(folder) else None,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the driver, which asks it to save
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()

    def look(self) -> Look:
        """As `Host.look`."""
        assert self._process is not None and self._reader is not None, "nothing was started"
        status = self._process.poll()
        if status is not None:
            self._reader.join(_LAST_OUTPUT)
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        return Look(lines, status)

    def send(self, number: int) -> None:
        """As `Host.send`."""
        if self._process is not None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Kills the process, and what it has started."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._lines.append(line.rstrip("\n"))
