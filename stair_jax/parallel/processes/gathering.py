"""Process 0 at the start of a run: it accepts connections until all processes are there.

All connections are served side by side, each with its own deadline: a stranger who is silent, slow
or talks nonsense is turned away, and holds nobody up.
"""

import selectors
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from stair_jax.closing import Closing
from stair_jax.errors import UserError
from stair_jax.parallel.processes import credentials
from stair_jax.parallel.processes.collectives import LostProcess
from stair_jax.parallel.processes.hello import Hello, Member, answer, greeting
from stair_jax.parallel.processes.messages import LINE_SECONDS, LONGEST_LINE, parse
from stair_jax.stopping import heed

# Connections that have not said yet who they are: beyond this, the oldest leaves for a new one.
_MOST_GUESTS = 256
_LOOK_SECONDS = 0.1  # between two looks at deadlines and signals, where nobody comes


@dataclass
class _Guest:
    """A connection whose first line is not complete yet."""

    connection: socket.socket
    peer: str
    deadline: float
    nonce: str = field(default_factory=credentials.draw_nonce)
    line: bytes = b""


class Gathering(Closing):
    """Accepts the other processes of a run, for the time of a `with` block."""

    def __init__(self, member: Member, servers: tuple[socket.socket, ...]):
        """Begins to accept.

        Args:
          member: process 0.
          servers: sockets that listen; remain the caller's.
        """
        self._member = member
        self._selector = selectors.DefaultSelector()
        self._guests: dict[socket.socket, _Guest] = {}  # the oldest first
        self._members: dict[int, tuple[socket.socket, Hello]] = {}
        self._turned_away: set[str] = set()
        for server in servers:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ, "server")

    def close(self) -> None:
        """Dismisses those that are not members, and accepts no more."""
        for guest in list(self._guests.values()):
            self._dismiss(guest.connection)
        self._selector.close()

    def run(self, deadline: float, seconds: float) -> dict[int, socket.socket]:
        """Waits until all are there; returns their connections by process index.

        Raises:
          LostProcess: some did not come by the deadline; names them.
          UserError: the command line of a process contradicts that of this one.
        """
        while len(self._members) < self._member.count - 1:
            heed()
            if time.monotonic() >= deadline:
                self._refuse_all(self._late(seconds), LostProcess)
            for key, _ in self._selector.select(_LOOK_SECONDS):
                assert isinstance(key.fileobj, socket.socket)
                if key.data == "server":
                    self._accept(key.fileobj)
                elif key.fileobj in self._guests:
                    self._listen_to(self._guests[key.fileobj])
                elif key.data != "guest":
                    self._lose(key.data)
            now = time.monotonic()
            for guest in [guest for guest in self._guests.values() if guest.deadline <= now]:
                self._dismiss(guest.connection)
        return self._start_all()

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, address = server.accept()
        except OSError:  # gone already; or no descriptor is left, and those of guests come back
            return
        connection.setblocking(False)
        if len(self._guests) >= _MOST_GUESTS:
            self._dismiss(next(iter(self._guests)))
        guest = _Guest(connection, str(address[0]), time.monotonic() + LINE_SECONDS)
        self._guests[connection] = guest
        self._selector.register(connection, selectors.EVENT_READ, "guest")
        try:
            connection.send(greeting(guest.nonce))
        except OSError:
            self._dismiss(connection)

    def _listen_to(self, guest: _Guest) -> None:
        """Reads what a guest has sent; with a whole line it becomes a member or leaves."""
        try:
            data = guest.connection.recv(LONGEST_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        guest.line += data
        if data and b"\n" not in guest.line and len(guest.line) <= LONGEST_LINE:
            return
        # Nothing may follow the line: a process waits for the answer before it says more.
        hello = Hello.read(parse(guest.line)) if guest.line[-1:] == b"\n" else None
        if hello is None or guest.line.count(b"\n") > 1:
            self._dismiss(guest.connection)
        elif not hello.is_signed(self._member.token, guest.nonce):
            self._turn_away(guest, hello)
        else:
            self._admit(guest, hello)

    def _admit(self, guest: _Guest, hello: Hello) -> None:
        connection = guest.connection
        del self._guests[connection]
        problem = self._contradiction(hello)
        if problem:
            self._say(connection, hello, problem, True)
            connection.close()
            self._refuse_all(problem, UserError)
        self._selector.modify(connection, selectors.EVENT_READ, hello.index)
        self._members[hello.index] = (connection, hello)

    def _contradiction(self, hello: Hello) -> str:
        """Why a process cannot be part of this run; "" if it can."""
        count = self._member.count
        if hello.count != count:
            return (
                f"process {hello.index} was started with --num_processes={hello.count}, "
                f"process 0 with --num_processes={count}"
            )
        if hello.index in self._members:
            return f"two processes were started with --process_id={hello.index}"
        return ""

    def _turn_away(self, guest: _Guest, hello: Hello) -> None:
        """Sends away who has another token; the run goes on waiting, as it may be a stranger."""
        text = f"process 0 has another {credentials.VARIABLE}: set the same for all processes"
        with suppress(OSError):  # without the token: nothing is signed for a stranger
            guest.connection.send(answer("", hello, text, True))
        self._dismiss(guest.connection)
        if guest.peer not in self._turned_away and len(self._turned_away) < _MOST_GUESTS:
            self._turned_away.add(guest.peer)
            print(
                f"stair_jax: {guest.peer} came as process {hello.index} with another "
                f"{credentials.VARIABLE}, and was turned away: set the same for all processes",
                file=sys.stderr,
                flush=True,
            )

    def _lose(self, index: int) -> None:
        """A process that is waiting for the start has ended, or says what it should not."""
        connection, _ = self._members.pop(index)
        self._selector.unregister(connection)
        connection.close()

    def _dismiss(self, connection: socket.socket) -> None:
        del self._guests[connection]
        self._selector.unregister(connection)
        connection.close()

    def _start_all(self) -> dict[int, socket.socket]:
        connections = {}
        for index, (connection, hello) in sorted(self._members.items()):
            self._selector.unregister(connection)
            self._say(connection, hello, "", False)
            connections[index] = connection
        return connections

    def _refuse_all(self, text: str, kind: type[Exception]) -> None:
        """Tells all who are there why the run cannot start, and raises `kind` with that text."""
        for connection, hello in self._members.values():
            self._say(connection, hello, text, kind is UserError)
            connection.close()
        self._members.clear()
        raise kind(text)

    def _say(self, connection: socket.socket, hello: Hello, text: str, is_mistake: bool) -> None:
        """Sends the answer to a hello; an empty text: the run starts."""
        connection.settimeout(LINE_SECONDS)
        with suppress(OSError):
            connection.sendall(answer(self._member.token, hello, text, is_mistake))

    def _late(self, seconds: float) -> str:
        count = self._member.count
        missing = [str(index) for index in range(1, count) if index not in self._members]
        noun = "process" if len(missing) == 1 else "processes"
        names = ", ".join(missing)
        return f"{noun} {names} of {count} did not come to the start within {seconds:.0f} s"
