"""The network interfaces on which process 0 listens: those of the coordinator's address alone."""

import errno
import ipaddress
import socket
import sys
from dataclasses import dataclass

from stair_jax.errors import UserError

_ALL = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Listening:
    """Where process 0 listens.

    Attributes:
      sockets: that listen, at least one.
      host: of these sockets, for JAX's coordination service; None: all interfaces.
    """

    sockets: tuple[socket.socket, ...]
    host: str | None

    def address(self, port: int) -> str:
        """host:port of them, as JAX writes it."""
        host = "::" if self.host is None else self.host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self) -> None:
        """Frees the port."""
        for server in self.sockets:
            server.close()


def listen(host: str, port: int, interface: str = "", backlog: int = 128) -> Listening:
    """Listens at the coordinator's port, on the interfaces that its host name stands for.

    Where that name leads to no interface of this machine that others can reach (behind a network
    address translation, or on a machine whose own name means 127.0.1.1), it listens on all of them
    and says so.

    Args:
      host: of the coordinator's address.
      port: of the coordinator's address.
      interface: address or name to listen on in place of `host`; 0.0.0.0 or :: for all.
      backlog: most connections that wait to be accepted.

    Raises:
      UserError: the port cannot be used; names it, or `--listen`.
    """
    if interface in _ALL:
        return Listening((_serve_all(port, backlog),), None)
    addresses = _resolve(interface or host, port)
    if not interface and _shuts_others_out(host, addresses):
        addresses = []
    sockets: list[socket.socket] = []
    for family, address in addresses:
        try:
            sockets.append(socket.create_server(address, family=family, backlog=backlog))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                Listening(tuple(sockets), None).close()
                raise _refused(port, error) from error
    if sockets:
        return Listening(tuple(sockets), interface or host)
    if interface:
        raise UserError(
            f"--listen is {interface!r}: this machine has no such interface; give an address of "
            "it, or 0.0.0.0 for all interfaces"
        )
    print(
        f"stair_jax: {host} is no address of an interface of this machine: process 0 listens on "
        "all of them (--listen=HOST names one)",
        file=sys.stderr,
        flush=True,
    )
    return Listening((_serve_all(port, backlog),), None)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """(family, address) of each address that a host name stands for; [] if it is not known."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return []
    return list(dict.fromkeys((family, address) for family, *_, address in found))  # type: ignore[misc]


def _shuts_others_out(host: str, addresses: list[tuple[int, tuple[str, int]]]) -> bool:
    """Whether a name that is not plainly this machine's loopback means only that here."""
    try:
        ipaddress.ip_address(host)
        return False
    except ValueError:
        pass
    return host != "localhost" and all(
        ipaddress.ip_address(address[0].partition("%")[0]).is_loopback for _, address in addresses
    )


def _serve_all(port: int, backlog: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
            )
        return socket.create_server(("", port), backlog=backlog)
    except (OSError, OverflowError) as error:
        raise _refused(port, error) from error


def _refused(port: int, error: Exception) -> UserError:
    return UserError(
        f"process 0 cannot listen at port {port} of --coordinator: {error}; name another port, to "
        "all processes"
    )
