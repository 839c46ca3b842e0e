"""The processes of a run find each other, before JAX does: so that who is missing can be named.

JAX itself ends a process that waited too long with an abort that names nobody. Process 0 listens at
the coordinator's address, where it serves JAX's store once all have come; the connections stay.
"""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stair_jax.errors import UserError
from stair_jax.parallel.distributed import LostProcess

_PAUSE = 0.2  # seconds between two attempts to reach process 0
_HELLO = "stair_jax"
_LONGEST_LINE = 1 << 16
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}


@dataclass(frozen=True)
class Member:
    """A process of a run: host:port of process 0, how many there are, which one this is."""

    coordinator: str
    count: int
    index: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of process 0."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def meet(member: Member, seconds: float) -> dict[int, socket.socket]:
    """Waits until all processes are there.

    Returns:
      a connection to each other process in process 0, in the others one to process 0.

    Raises:
      LostProcess: some did not come in time; names them.
      UserError: their command lines contradict each other; the address cannot be served.
    """
    deadline = time.monotonic() + seconds
    if member.index == 0:
        return _gather(member, deadline, seconds)
    return {0: _reach(member, deadline, seconds)}


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """One JSON object, as a line."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next JSON object; None where the other side is gone, or is none of ours.

    Read byte by byte: lines are few and short, and nothing is left over.
    """
    line = b""
    while not line.endswith(b"\n"):
        try:
            data = connection.recv(1)
        except OSError:
            return None
        if not data or len(line) > _LONGEST_LINE:
            return None
        line += data
    with suppress(ValueError):
        message = json.loads(line)
        return message if isinstance(message, dict) else None
    return None


def _gather(member: Member, deadline: float, seconds: float) -> dict[int, socket.socket]:
    """Process 0: who comes, until all are there."""
    connections: dict[int, socket.socket] = {}
    with _serve(member) as server:
        while len(connections) < member.count - 1:
            server.settimeout(max(0.001, min(1.0, deadline - time.monotonic())))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if time.monotonic() >= deadline:
                    missing = [i for i in range(1, member.count) if i not in connections]
                    _refuse(connections, _late(missing, member.count, seconds))
                continue
            connection.settimeout(5.0)
            hello = receive(connection)
            if not hello or hello.get("hello") != _HELLO:
                connection.close()  # a stranger
                continue
            problem = _contradiction(member, hello, connections)
            if problem:
                _refuse({**connections, -1: connection}, problem, UserError)
            connections[hello["index"]] = connection
    for connection in connections.values():
        _keep_alive(connection)
        with suppress(OSError):
            send(connection, {"go": True})
    return connections


def _reach(member: Member, deadline: float, seconds: float) -> socket.socket:
    """The other processes: a connection to process 0, once all are there."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection(member.address, timeout=min(5.0, left))
        except OSError:
            time.sleep(_PAUSE)  # not yet there, or its name not yet known
            continue
        connection.settimeout(left + 5.0)  # process 0 says first who is missing
        with suppress(OSError):
            send(connection, {"hello": _HELLO, "count": member.count, "index": member.index})
        answer = receive(connection) or {}
        if "go" in answer:
            _keep_alive(connection)
            return connection
        connection.close()
        if "refused" in answer:
            raise (UserError if answer["mistake"] else LostProcess)(answer["refused"])
        time.sleep(_PAUSE)  # the end of an earlier run
    raise LostProcess(
        f"process 0 of {member.count} was not there at {member.coordinator} within "
        f"{seconds:.0f} s: see what is said there last, and whether that address can be reached"
    )


def _serve(member: Member) -> socket.socket:
    """A socket that listens on all interfaces."""
    port = member.address[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=member.count
            )
        return socket.create_server(("", port), backlog=member.count)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"process 0 cannot listen at port {port} of --coordinator={member.coordinator}: "
            f"{error}; name another port, to all processes"
        ) from error


def _contradiction(
    member: Member, hello: Mapping[str, Any], connections: Mapping[int, socket.socket]
) -> str:
    """What cannot be of a process that comes; nothing: it is welcome."""
    if hello["count"] != member.count:
        return (
            f"process {hello['index']} was started with --num_processes={hello['count']}, "
            f"process 0 with --num_processes={member.count}"
        )
    if hello["index"] in connections:
        return f"two processes were started with --process_id={hello['index']}"
    return ""


def _refuse(
    connections: Mapping[int, socket.socket],
    text: str,
    kind: type[Exception] = LostProcess,
) -> None:
    """Tells all who came why there is no run; raises."""
    for connection in connections.values():
        with suppress(OSError):
            send(connection, {"refused": text, "mistake": kind is UserError})
        connection.close()
    raise kind(text)


def _late(missing: list[int], count: int, seconds: float) -> str:
    noun = "process" if len(missing) == 1 else "processes"
    names = ", ".join(map(str, missing))
    return f"{noun} {names} of {count} did not come to the start within {seconds:.0f} s"


def _keep_alive(connection: socket.socket) -> None:
    """Lets the kernel find out that the other machine is down, within three minutes."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not everywhere
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
