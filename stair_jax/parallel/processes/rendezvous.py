"""Rendezvous of the processes of a run over TCP, before `jax.distributed` is initialised.

It exists to say which process is missing: JAX aborts a process that waited too long for the others
with a log that names none of them. Process 0 listens at the coordinator's address, and frees it for
JAX's own coordination service once all have connected; the connections stay open for `watchdog.py`.
Messages are JSON objects, one per line.
"""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stair_jax.errors import UserError
from stair_jax.parallel.processes.collectives import LostProcess

_PAUSE = 0.2  # seconds between two attempts to reach process 0
_HELLO = "stair_jax"  # tells our processes from port scanners and the like
_LONGEST_LINE = 1 << 16  # bytes
# Probe after 60 s of silence, then every 15 s; give up after 8 lost probes: 3 minutes in all.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}


@dataclass(frozen=True)
class Member:
    """One process of a run."""

    coordinator: str  # host:port of process 0
    count: int  # number of processes
    index: int  # of this process, from 0

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) of process 0; the brackets of an IPv6 address are removed."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def meet(member: Member, seconds: float) -> dict[int, socket.socket]:
    """Connects all processes of a run with process 0, waiting up to `seconds`.

    Returns:
      connections by process index: in process 0 one to each other process, in the others one to
      process 0.

    Raises:
      LostProcess: some processes did not connect in time; names them.
      UserError: the command lines of the processes contradict each other, or process 0 cannot
        listen at the address.
    """
    deadline = time.monotonic() + seconds
    if member.index == 0:
        return _gather(member, deadline, seconds)
    return {0: _reach(member, deadline, seconds)}


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends one JSON object as a line.

    Raises:
      OSError: the other side is gone.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Receives the next JSON object; None if the other side is gone or does not send one.

    Reads byte by byte, so that nothing of a later line is consumed; lines are few and short.
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
    """On process 0: accepts connections until all processes are there."""
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
                connection.close()  # not one of our processes
                continue
            problem = _contradiction(member, hello, connections)
            if problem:
                # -1, as its own index may be that of another connection.
                _refuse({**connections, -1: connection}, problem, UserError)
            connections[hello["index"]] = connection
    for connection in connections.values():
        _keep_alive(connection)
        with suppress(OSError):
            send(connection, {"go": True})
    return connections


def _reach(member: Member, deadline: float, seconds: float) -> socket.socket:
    """On the other processes: connects to process 0, and waits for its go-ahead."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection(member.address, timeout=min(5.0, left))
        except OSError:
            time.sleep(_PAUSE)  # process 0 does not listen yet, or DNS does not know its host yet
            continue
        # Longer than process 0 waits, as only process 0 can say who is missing.
        connection.settimeout(left + 5.0)
        with suppress(OSError):
            send(connection, {"hello": _HELLO, "count": member.count, "index": member.index})
        answer = receive(connection) or {}
        if "go" in answer:
            _keep_alive(connection)
            return connection
        connection.close()
        if "refused" in answer:
            raise (UserError if answer["mistake"] else LostProcess)(answer["refused"])
        time.sleep(_PAUSE)  # closed without an answer: process 0 of an earlier run that is ending
    raise LostProcess(
        f"process 0 of {member.count} was not there at {member.coordinator} within "
        f"{seconds:.0f} s: see what is said there last, and whether that address can be reached"
    )


def _serve(member: Member) -> socket.socket:
    """A socket that listens at the coordinator's port on all interfaces."""
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
    """Why a connecting process cannot be part of this run; "" if it can."""
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
    """Tells all connected processes why the run cannot start, and raises `kind` with that text."""
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
    """Makes the operating system detect within three minutes that the other machine is down."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not on every platform
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
