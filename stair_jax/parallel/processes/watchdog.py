"""Watchdog between the processes of a run: if one ends, all end, with a line that says why.

Each process keeps a TCP connection to process 0. The operating system closes it when the process
dies, however it dies, and gives up on it (TCP keepalive) when its machine is down. So a death is
noticed at once even if the others hang in a device collective or wait at a barrier for hours, for
which JAX's heartbeat has to have a long timeout. A process that leaves in order sends its exit
status first; process 0 forwards what it hears to all others.
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

from stair_jax.parallel.processes.hello import Member
from stair_jax.parallel.processes.messages import has_fields, readable, receive, send

LOST = 4  # exit status: another process of the run was lost
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses after these signals
_GRACE = 60.0  # seconds for an orderly exit after another process received a signal
_SETTLE = 3.0  # seconds within which the end of another process, if any, has become known here
_AGAIN = "the same command goes on where it stopped"


class Watchdog:
    """The watchdog of this process: its connections to the others, and a thread that reads them."""

    def __init__(self, member: Member, connections: dict[int, socket.socket]):
        """Starts the watching thread.

        Args:
          member: this process.
          connections: as returned by `meet`.
        """
        self._member, self._connections = member, connections
        self._is_leaving = threading.Event()
        watch = self._watch_main if member.index else self._watch_all
        threading.Thread(target=watch, daemon=True, name="peers").start()

    def leave(self, status: int, text: str = "") -> None:
        """Tells the others that this process exits, with its exit status and, if it failed, why."""
        self._is_leaving.set()
        self._tell({"process": self._member.index, "status": status, "text": text})

    def settle(self) -> None:
        """To be called after an error: does not return if another process has ended.

        The error is then most likely a consequence (e.g. a failed collective), and the watching
        thread exits with the message of the process that ended first.
        """
        time.sleep(_SETTLE)

    def _tell(self, end: dict[str, Any]) -> None:
        for connection in list(self._connections.values()):
            with suppress(OSError):
                send(connection, end)

    def _watch_main(self) -> None:
        """Thread of all processes but the first: reacts to messages and to the end of process 0."""
        for end in _ends(self._connections[0], 0, self._member):
            if end["status"] == 0:
                return
            self._heed(end)

    def _watch_all(self) -> None:
        """Thread of process 0: reacts to the end of any other process, and forwards it."""
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    selector.unregister(key.fileobj)
                    self._connections.pop(key.data)
                    end = next(_ends(key.fileobj, key.data, self._member))
                    if end["status"] != 0:
                        self._tell(end)
                        self._heed(end)

    def _heed(self, end: dict[str, Any]) -> None:
        """Ends this process after another one has ended, unless it is already exiting."""
        if self._is_leaving.is_set():
            return
        status = end["status"]
        who = f"stair_jax: process {end['process']} of {self._member.count}"
        if status is None:
            _exit(LOST, f"{who} is lost (killed, or its machine is down): {_AGAIN}")
        elif status in _STOPPED:
            # As if all had received the signal: training saves a checkpoint before it exits.
            os.kill(os.getpid(), signal.SIGTERM)
            if not self._is_leaving.wait(_GRACE):
                _exit(status, f"{who} was told to stop, and so does this one: {_AGAIN}")
        else:
            _exit(status, f"{who} failed: {end['text']}")


def _ends(connection: socket.socket, process: int, member: Member) -> Iterator[dict[str, Any]]:
    """Messages from a connection; after the last one, that the process is gone (status None).

    What no process of ours would send counts as its end.
    """
    while (end := _read_end(receive(connection, None), process, member)) is not None:
        yield end
    yield {"process": process, "status": None, "text": ""}


def _read_end(message: dict[str, Any] | None, sender: int, member: Member) -> dict[str, Any] | None:
    """The end of a process that a message tells; None: it tells none.

    Process 0 speaks of any process, the others of themselves; a status of None, which is no exit
    status, is passed on by process 0 alone.
    """
    if message is None or not (
        has_fields(message, process=int, status=int, text=str)
        or (sender == 0 and has_fields(message, process=int, status=type(None), text=str))
    ):
        return None
    if not 0 <= (message["status"] or 0) < 256:
        return None
    processes = range(member.count) if sender == 0 else [sender]
    if message["process"] not in processes:
        return None
    return message | {"text": readable(message["text"])}


def _exit(status: int, text: str) -> None:
    """Ends the process from any thread, while the main thread may hang in a collective.

    `sys.exit` would end only the calling thread. No cleanup runs, so output is flushed here.
    """
    print(text, file=sys.stderr, flush=True)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)
