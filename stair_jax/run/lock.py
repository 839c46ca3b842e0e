"""The lock of a working folder, which keeps a second run out of it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.stopping import heed

HANDED_OVER = 60.0  # seconds within which a part of a run that has ended lets go of the lock
_FILE = ".lock"
_PAUSE = 0.1  # seconds
_QUIET = 2.0  # seconds of waiting, of which nothing is said


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


class Lock:
    """The lock of a working folder, which this process has."""

    def __init__(self, workdir: Path, seconds: float = 0.0):
        """Takes it; the folder is made.

        Args:
          workdir: the folder.
          seconds: to wait for another run, such as one that was just killed, to let go of it.

        Raises:
          UserError: another run uses the folder.
        """
        self._workdir = workdir
        self._path = storage.make_folder(workdir) / _FILE
        self._take(seconds)

    def give_up(self) -> None:
        """Lets other runs in."""
        with suppress(OSError, ValueError):  # it may be closed
            self._file.truncate(0)
        self._file.close()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lets a part of this run have the lock, which is then the one that writes."""
        self.give_up()
        try:
            yield
        finally:
            self._take(HANDED_OVER)

    def _take(self, seconds: float) -> None:
        deadline, said_at = time.monotonic() + seconds, time.monotonic() + _QUIET
        with storage.writing(self._path):
            self._file = open(self._path, "a+")  # noqa: SIM115 (`give_up` closes it)
        try:
            while not self._try():
                if time.monotonic() >= min(deadline, said_at):
                    self._file.seek(0)
                    holder = self._file.read().strip() or "another run"
                    used = f"{self._workdir} is in use by {holder}: "
                    if time.monotonic() >= deadline:
                        raise UserError(f"{used}wait until it ends, or use another --workdir")
                    say(f"{used}waits for at most {seconds:.0f} s")
                    said_at = deadline
                heed()
                time.sleep(_PAUSE)
        except BaseException:
            self._file.close()
            raise
        with storage.writing(self._path):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            say(f"{self._workdir} is on a file system without locks: let no second run use it")
        return True


@contextmanager
def locked(workdir: Path, seconds: float = 0.0) -> Iterator[Lock]:
    """Makes `workdir` and keeps other runs out of it.

    The operating system gives the lock of a process up when it dies, so that no stale one is left.

    Args:
      workdir: the folder.
      seconds: see `Lock`.

    Raises:
      UserError: another run uses the folder.
    """
    lock = Lock(workdir, seconds)
    try:
        yield lock
    finally:
        lock.give_up()
