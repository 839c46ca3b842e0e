"""The process that renders chat templates, kept for as long as it does what it is asked.

A start takes a tenth of a second, more than a rendering by far; data sets of chats of several turns
ask for one rendering a row. After a template that fails or exceeds a limit, a new one is started.
"""

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_PROCESS = Path(__file__).with_name("template_process.py")
_CHUNK = 2**16


class WorkerError(Exception):
    """The process has ended without an answer, or there was none in time.

    Attributes:
      signal: that ended it; 0: it ended by itself; None: it did not end.
    """

    def __init__(self, signal: int | None):
        """`signal`: see the class."""
        super().__init__(f"ended by signal {signal}")
        self.signal = signal


class TemplateWorker:
    """Answers requests one at a time, from any thread; a forked process gets one of its own."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """What `template_process.render` makes of a request.

        Args:
          request: with the limits, see `template_process.main`.
          seconds: to wait for the answer.

        Raises:
          WorkerError: there is none.
        """
        with self._lock:
            line = json.dumps(request).encode() + b"\n"
            process, is_new = self._running()
            try:
                _write(process, line)
            except OSError:  # it has ended since, e.g. by a signal to all
                self._stop()
                if is_new:
                    raise WorkerError(0) from None
                process, _ = self._running()
                _write(process, line)
            try:
                answer: dict[str, Any] = json.loads(_read_line(process, seconds))
            except WorkerError:
                self._stop()
                raise
            if "error" in answer:
                self._stop()
            return answer

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._lock:
            self._stop()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def _running(self) -> tuple[subprocess.Popen[bytes], bool]:
        """(the process, whether it was started just now)."""
        if self._process is not None:
            return self._process, False
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process, True

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                assert pipe is not None
                pipe.close()
            except OSError:  # what could not be written any more
                pass


def _write(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _read_line(process: "subprocess.Popen[bytes]", seconds: float) -> bytes:
    """A line of what the process writes.

    Raises:
      WorkerError: it has ended, or writes none in time.
    """
    assert process.stdout is not None
    file = process.stdout.fileno()
    end = time.monotonic() + seconds
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while not parts or not parts[-1].endswith(b"\n"):
            if not selector.select(max(0.0, end - time.monotonic())):
                raise WorkerError(None)
            part = os.read(file, _CHUNK)
            if not part:
                raise WorkerError(max(0, -process.wait()))
            parts.append(part)
    return b"".join(parts)
