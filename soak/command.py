"""A run of the command line, started again and again: one process, or several that share a run."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Command:
    """How a run is started.

    Attributes:
        arguments: of Python: the module, the config and its overrides; the working folder is added.
        compiled: folder of compiled programs, which all starts share.
        processes: that share the run.
        devices: of each process.
        start_timeout: seconds in which several processes have to find each other.
        optimised: False compiles as the environment says, where that compiles quickly.
    """

    arguments: tuple[str, ...]
    compiled: Path
    processes: int = 1
    devices: int = 1
    start_timeout: int = 240
    optimised: bool = True

    @classmethod
    def of_config(
        cls, config: str, compiled: Path, overrides: Mapping[str, Any], **options: Any
    ) -> "Command":
        """`stair_jax.launch` with a config file and the overrides of its fields."""
        fields = [f"--config.{name}={value}" for name, value in overrides.items()]
        arguments = ("-m", "stair_jax.launch", f"--config={config}", *fields)
        return cls(arguments, compiled, **options)

    def start(self, workdir: Path, label: str = "") -> "Started":
        """Starts the processes; what they say goes to `WORKDIR.LABEL.INDEX.log`."""
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(self.devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        if self.optimised:  # it computes more than it compiles
            environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
        command = [sys.executable, *self.arguments, f"--workdir={workdir}"]
        address = f"--coordinator=127.0.0.1:{_free_port()}"
        started = Started(workdir)
        for index in range(self.processes):
            own = [address, f"--num_processes={self.processes}", f"--process_id={index}"]
            own.append(f"--start_timeout={self.start_timeout}")
            log = workdir.parent / f"{workdir.name}.{label}.{index}.log"
            with log.open("w") as file, _heeding_interrupts():
                process = subprocess.Popen(
                    command + (own if self.processes > 1 else []),
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                )
            started.add(process, log)
        return started

    def finish(self, workdir: Path, label: str = "calm", since: str = "") -> float:
        """Runs the command to its end.

        Returns:
            the seconds that it took, from when process 0 said `since`.

        Raises:
            AssertionError: it failed; with what it said.
        """
        with self.start(workdir, label) as started:
            seconds = 0.0
            while started.is_running:
                seconds = started.seconds_since(since)
                time.sleep(_POLL)
            statuses = started.wait(60)
        assert set(statuses) == {0}, f"ended with {statuses}: {started.said()}"
        return seconds


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """A shell lets its background jobs ignore SIGINT, and they their children."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Started:
    """The processes of one start; leaving the `with` block kills what still runs.

    Attributes:
        workdir: of the run.
    """

    def __init__(self, workdir: Path):
        """None yet."""
        self.workdir = workdir
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []
        self._said_at = {"": time.monotonic()}

    def add(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Takes one more process."""
        self._processes.append(process)
        self._logs.append(log)

    def __enter__(self) -> "Started":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def count(self) -> int:
        """Number of processes."""
        return len(self._processes)

    def seconds_since(self, text: str = "") -> float:
        """Seconds since process 0 said `text`, as far as this was asked for; "": the start."""
        if text not in self._said_at and text in self.said():
            self._said_at[text] = time.monotonic()
        return time.monotonic() - self._said_at.get(text, time.monotonic())

    @property
    def is_running(self) -> bool:
        """Whether all processes still run."""
        return all(process.poll() is None for process in self._processes)

    def said(self, index: int = 0) -> str:
        """What a process said until now."""
        return self._logs[index].read_text(errors="replace")

    def send(self, index: int, number: int) -> None:
        """Sends a signal to one process."""
        self._processes[index].send_signal(number)

    def wait(self, seconds: float) -> list[int | None]:
        """Exit statuses; None for a process that still runs after so many seconds."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
        return [process.poll() for process in self._processes]

    def kill(self) -> None:
        """Kills what still runs."""
        for process in self._processes:
            process.kill()
            process.wait()
