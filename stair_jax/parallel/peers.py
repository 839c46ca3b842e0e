"""Processes of a run watch each other: the end of one ends all, with a line that says why.

Each holds a TCP connection to process 0. The kernel closes it when a process dies, however it dies
and whatever the others wait for (a collective of devices that hangs, a barrier of hours), and gives
it up when a machine does not answer any more. Who leaves says goodbye or why before. Process 0
passes on what it hears.
"""

import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from stair_jax.parallel.rendezvous import Member, meet, receive, send

LOST = 4  # exit status: another process of the run was lost
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_GRACE = 60.0  # seconds to end in order when another process was told to stop
_SETTLE = 3.0  # seconds in which the consequence of another's end is told from a fault of one's own
_AGAIN = "the same command goes on where it stopped"


class Peers:
    """The line of this process to the others."""

    def __init__(self, member: Member, connections: dict[int, socket.socket]):
        """Watches from now on.

        Args:
          member: which process this is.
          connections: of `meet`.
        """
        self._member, self._connections = member, connections
        self._is_leaving = threading.Event()
        watch = self._watch_main if member.index else self._watch_all
        threading.Thread(target=watch, daemon=True, name="peers").start()

    @classmethod
    def join(cls, member: Member, seconds: float) -> "Peers":
        """Waits until all processes are there, and watches them.

        Raises:
          LostProcess: some did not come in time; names them.
          UserError: their command lines contradict each other; no such address.
        """
        return cls(member, meet(member, seconds))

    def leave(self, status: int, text: str = "") -> None:
        """Tells the others that this process ends now, and how."""
        self._is_leaving.set()
        self._tell({"process": self._member.index, "status": status, "text": text})

    def settle(self) -> None:
        """After an error; does not return where that comes of another process's end."""
        time.sleep(_SETTLE)

    def _tell(self, end: dict[str, Any]) -> None:
        for connection in list(self._connections.values()):
            with suppress(OSError):
                send(connection, end)

    def _watch_main(self) -> None:
        """In the other processes: heeds what process 0 says, and its death."""
        for end in _ends(self._connections[0], 0):
            if end["status"] == 0:
                return
            self._heed(end)

    def _watch_all(self) -> None:
        """In process 0: heeds all others, and passes on how one ended."""
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    selector.unregister(key.fileobj)
                    self._connections.pop(key.data)
                    end = next(_ends(key.fileobj, key.data))
                    if end["status"] != 0:
                        self._tell(end)
                        self._heed(end)

    def _heed(self, end: dict[str, Any]) -> None:
        """Ends this process after another one, unless it is leaving by itself."""
        if self._is_leaving.is_set():
            return
        status = end["status"]
        who = f"stair_jax: process {end['process']} of {self._member.count}"
        if status is None:
            _exit(LOST, f"{who} is lost (killed, or its machine is down): {_AGAIN}")
        elif status in _STOPPED:
            os.kill(os.getpid(), signal.SIGTERM)  # as if all had been told to stop
            if not self._is_leaving.wait(_GRACE):
                _exit(status, f"{who} was told to stop, and so does this one: {_AGAIN}")
        else:
            _exit(status, f"{who} failed: {end['text']}")


def _ends(connection: socket.socket, process: int) -> Iterator[dict[str, Any]]:
    """What is said of ends at the other side; at last, that it is gone without a word."""
    while (end := receive(connection)) is not None:
        yield end
    yield {"process": process, "status": None}


def _exit(status: int, text: str) -> None:
    """Ends the process from any thread; the main one may hang in a collective."""
    print(text, file=sys.stderr, flush=True)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)
