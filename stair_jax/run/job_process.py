"""A job as a process: its log, its end, and what is left of an earlier one."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from stair_jax import storage
from stair_jax.cluster.tied import tied
from stair_jax.errors import UserError
from stair_jax.run.job_list import Job
from stair_jax.run.job_places import Place

_TAIL = 8192  # bytes of a log in which its last line is looked for


class JobProcess:
    """A job that runs. What asks the queue to stop reaches it by the queue alone."""

    def __init__(self, command: Sequence[str], place: Place, log: BinaryIO) -> None:
        """Starts a command.

        Args:
          command: Python and its words.
          place: where it runs.
          log: of what it writes.
        """
        self._process = subprocess.Popen(
            tied(command[1:], signal.SIGTERM),  # it saves when the queue dies
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | dict(place.environment),
            process_group=0,  # Ctrl-C of a terminal goes to all processes of a group
        )
        if place.cores and sys.platform == "linux":
            with suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, place.cores)  # before it has threads

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None: it runs."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it, and what it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def log_path(logs: Path, job: Job) -> Path:
    """The log of a job."""
    return logs / f"{job.name}.log"


def start_job(command: Sequence[str], place: Place, path: Path) -> JobProcess | None:
    """Starts a command; None: an earlier process still writes to this log.

    Args:
      command: Python and its words.
      place: where it runs.
      path: of the log, which goes on.

    Raises:
      UserError: the log cannot be written.
    """
    storage.make_folder(path.parent)
    with storage.writing(path), open(path, "ab") as log:
        # The process has this open file as its output. So the lock is there as long as the process
        # is, also where the queue was killed and another one runs.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:
            pass  # a file system without locks
        shown = [f"{name}={value}" for name, value in place.environment.items()]
        date = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"$ {shlex.join([*shown, *command])}  # {date}\n".encode())
        log.flush()
        return JobProcess(command, place, log)


def last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        return next(filter(None, reversed(lines)), "")
    return ""


def finished_seconds(job: Job, logs: Path) -> float | None:
    """How long a job took that was done by the same words; None: it is not done."""
    record = _read_record(logs, job)
    try:
        is_done = job.product.exists() and record.get("words") == job.all_words()
    except UserError:  # what its late words depend on has gone
        return None
    return record["seconds"] if is_done else None


def write_ended(job: Job, logs: Path, seconds: float, is_done: bool) -> float:
    """Writes down that a job has ended.

    Args:
      job: that has ended.
      logs: folder of the records.
      seconds: since it was started.
      is_done: whether all that it does is done.

    Returns:
      the seconds of all its starts, each of which goes on where the one before stopped.
    """
    total = round(_read_record(logs, job).get("seconds", 0.0) + seconds, 1)
    record = {"words": job.all_words() if is_done else None, "seconds": total}
    storage.write_json(_record_path(logs, job), record)
    return total


def _read_record(logs: Path, job: Job) -> dict[str, Any]:
    """What is known of earlier starts; nothing where the file is damaged: it is run again then."""
    with suppress(UserError):
        record = storage.read_json(_record_path(logs, job))
        if isinstance(record, dict) and isinstance(record.get("seconds"), int | float):
            return record
    return {}


def _record_path(logs: Path, job: Job) -> Path:
    return logs / f"{job.name}.ended.json"
