"""Starts of the command line as one process, or as several processes of one run."""

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
from typing import Any

from stair_jax.closing import Closing

ROOT = Path(__file__).parents[1]
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Command:
    """How a run is started.

    Attributes:
        arguments: of the Python interpreter, without the flag `--workdir`.
        compiled: folder of the compilation cache, which all starts share, unless
            JAX_COMPILATION_CACHE_DIR names another one.
        processes: number of processes.
        devices: number of CPU devices of each process.
        start_timeout: seconds within which the processes have to connect.
        optimised: compile with all of XLA's optimizations, whatever the environment says.
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
        """`stair_jax.launch` with a config file and overrides of its fields."""
        fields = [f"--config.{name}={value}" for name, value in overrides.items()]
        arguments = ("-m", "stair_jax.launch", f"--config={config}", *fields)
        return cls(arguments, compiled, **options)

    def start(self, workdir: Path, label: str = "") -> "Started":
        """Starts the processes; their output goes to `WORKDIR.LABEL.INDEX.log`."""
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(self.devices),
            _CACHE: os.environ.get(_CACHE) or str(self.compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start compiles the modules anew
        if self.optimised:  # computing takes longer than compiling
            environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
        command = [sys.executable, *self.arguments, f"--workdir={workdir}"]
        address = f"--coordinator=127.0.0.1:{_free_port()}"
        started = Started(workdir)
        for index in range(self.processes):
            own = [address, f"--num_processes={self.processes}", f"--process_id={index}"]
            own.append(f"--start_timeout={self.start_timeout}")
            log = workdir.parent / f"{workdir.name}.{label}.{index}.log"
            with log.open("w") as file, _handling_interrupts():
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

    def finish(self, workdir: Path, label: str = "only", since: str = "") -> float:
        """Runs the command to its end.

        Returns:
            the duration in seconds, counted from when process 0 printed `since`.

        Raises:
            AssertionError: the command failed; contains its output.
        """
        with self.start(workdir, label) as started:
            seconds = 0.0
            while started.is_running:
                seconds = started.seconds_since(since)
                time.sleep(_POLL)
            statuses = started.wait(60)
        assert set(statuses) == {0}, f"exited with {statuses}: {started.output()}"
        return seconds


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _handling_interrupts() -> Iterator[None]:
    """Lets child processes handle SIGINT; background jobs of a shell inherit that it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Started(Closing):
    """The processes of one start; leaving the `with` block kills those that still run.

    Attributes:
        workdir: of the run.
    """

    def __init__(self, workdir: Path):
        """Starts with no process."""
        self.workdir = workdir
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []
        self._seen_at = {"": time.monotonic()}

    def add(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Adds a process."""
        self._processes.append(process)
        self._logs.append(log)

    def close(self) -> None:
        """Kills what still runs."""
        self.kill()

    @property
    def count(self) -> int:
        """Number of processes."""
        return len(self._processes)

    @property
    def process_id(self) -> int:
        """Of process 0, in the operating system."""
        return self._processes[0].pid

    def seconds_since(self, text: str = "") -> float:
        """Seconds since `text` was first found in the output of process 0; "": since the start."""
        if text not in self._seen_at and text in self.output():
            self._seen_at[text] = time.monotonic()
        return time.monotonic() - self._seen_at.get(text, time.monotonic())

    @property
    def is_running(self) -> bool:
        """Whether all processes still run."""
        return all(process.poll() is None for process in self._processes)

    def output(self, index: int = 0) -> str:
        """The output of a process so far."""
        return self._logs[index].read_text(errors="replace")

    def send(self, index: int, number: int) -> None:
        """Sends a signal to one process."""
        self._processes[index].send_signal(number)

    def wait(self, seconds: float) -> list[int | None]:
        """Waits up to `seconds`; returns the exit statuses, None for a process that still runs."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
        return [process.poll() for process in self._processes]

    def kill(self) -> None:
        """Kills the processes that still run."""
        for process in self._processes:
            process.kill()
            process.wait()
