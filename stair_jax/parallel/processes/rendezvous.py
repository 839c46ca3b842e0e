"""Rendezvous of the processes of a run over TCP, before `jax.distributed` is initialised.

It exists to say which process is missing: JAX aborts a process that waited too long for the others
with a log that names none of them. Process 0 listens at the coordinator's address, and frees it for
JAX's own coordination service once all have connected; the connections stay open for `watchdog.py`.
What they say is in `hello.py`.
"""

import socket
import time
from contextlib import closing, suppress

from stair_jax.errors import UserError
from stair_jax.parallel.processes import credentials
from stair_jax.parallel.processes.collectives import LostProcess
from stair_jax.parallel.processes.gathering import Gathering
from stair_jax.parallel.processes.hello import Answer, Hello, Member, read_greeting
from stair_jax.parallel.processes.interfaces import Listening, listen
from stair_jax.parallel.processes.messages import LINE_SECONDS, receive
from stair_jax.stopping import heed

_PAUSE = 0.2  # seconds between two attempts to reach process 0
# Probe after 60 s of silence, then every 15 s; give up after 8 lost probes: 3 minutes in all.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}


def meet(
    member: Member, seconds: float, listening: Listening | None = None
) -> dict[int, socket.socket]:
    """Connects all processes of a run with process 0, waiting up to `seconds`.

    Args:
      member: this process.
      seconds: timeout.
      listening: of process 0: where it listens, closed at the end; None: at the address of the
        coordinator.

    Returns:
      connections by process index: in process 0 one to each other process, in the others one to
      process 0.

    Raises:
      LostProcess: some processes did not connect in time; names them.
      UserError: the command lines or tokens of the processes contradict each other, or process 0
        cannot listen at the address.
    """
    deadline = time.monotonic() + seconds
    if member.index == 0:
        with (
            closing(listening or listen(*member.address)) as listening,
            Gathering(member, listening.sockets) as gathering,
        ):
            connections = gathering.run(deadline, seconds)
    else:
        connections = {0: _reach(member, deadline, seconds)}
    for connection in connections.values():
        _keep_alive(connection)
    return connections


def _reach(member: Member, deadline: float, seconds: float) -> socket.socket:
    """On the other processes: connects to process 0, and waits for its go-ahead."""
    while (left := deadline - time.monotonic()) > 0:
        heed()
        try:
            connection = socket.create_connection(member.address, timeout=min(5.0, left))
        except OSError:
            time.sleep(_PAUSE)  # process 0 does not listen yet, or DNS does not know its host yet
            continue
        answer = _introduce(member, connection, left)
        if answer is not None and answer.is_signed and not answer.refused:
            return connection
        connection.close()
        if answer is not None and not answer.is_signed:
            raise UserError(
                f"{member.coordinator} has another {credentials.VARIABLE} than process "
                f"{member.index}: set the same for all processes"
            )
        if answer is not None:
            raise (UserError if answer.mistake else LostProcess)(answer.refused)
        time.sleep(_PAUSE)  # no answer of ours: process 0 of an earlier run that is ending
    raise LostProcess(
        f"process 0 of {member.count} was not there at {member.coordinator} within "
        f"{seconds:.0f} s: see what is said there last, and whether that address can be reached"
    )


def _introduce(member: Member, connection: socket.socket, left: float) -> Answer | None:
    """Says who this process is, and waits for the answer; None: it is not process 0 that speaks."""
    greeted = read_greeting(receive(connection, min(LINE_SECONDS, left)))
    if greeted is None:
        return None
    hello = Hello.of(member, greeted)
    with suppress(OSError):
        connection.sendall(hello.line())
    # Longer than process 0 waits, as only process 0 can say who is missing.
    return Answer.read(receive(connection, left + 5.0), hello, member.token)


def _keep_alive(connection: socket.socket) -> None:
    """Makes the operating system detect within three minutes that the other machine is down."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not on every platform
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
