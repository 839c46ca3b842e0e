"""The lock of a working folder, which keeps a second run out of it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import say

_FILE = ".lock"
_POLL = 0.05  # seconds between two tries


def lock_holder(workdir: Path) -> str:
    """Which run uses `workdir`, as far as can be seen from here; empty: none."""
    try:
        return (workdir / _FILE).read_text()
    except OSError:
        return ""


def is_locked(workdir: Path) -> bool:
    """Whether a run on this machine uses `workdir`; the mark of a process that died is none."""
    try:
        with open(workdir / _FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def locked(workdir: Path, patience: float = 0.0) -> Iterator[None]:
    """Makes `workdir` and keeps other runs out of it.

    The operating system gives the lock of a process up when it dies, so that no stale one is left.

    Args:
      workdir: folder of a run or sweep.
      patience: seconds for which it is waited until another one leaves it.

    Raises:
      UserError: another run uses the folder.
    """
    path = storage.make_folder(workdir) / _FILE
    with storage.writing(path):
        file = open(path, "a+")  # noqa: SIM115 (closed below, which gives the lock up)
    with file:
        try:
            _wait_for(file, patience)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by {file.read().strip() or 'another run'}: "
                "wait until it ends, or use another --workdir"
            ) from error
        except OSError:
            say(f"{workdir} is on a file system without locks: let no second run use it")
        with storage.writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _wait_for(file: TextIO, patience: float) -> None:
    """Takes the lock of a file, or raises a BlockingIOError when the patience is over."""
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(_POLL)
