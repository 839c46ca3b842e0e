"""`--cluster`: which workers there are, and whether strangers could be among them."""

import importlib.util
import os
import re
import secrets
from dataclasses import dataclass

from stair_jax.errors import UserError

AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"  # environment variables of Ray
# Whether Ray lets other machines in; where not, it listens at 127.0.0.1 alone. Despite its name it
# counts on Linux too.
_OTHER_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_MOST_WORKERS = 1024
_LOCAL, _RAY = re.compile(r"local:(\d{1,9})", re.ASCII), re.compile(r"ray://(\S+:\d{1,5})")


@dataclass(frozen=True)
class ClusterAddress:
    """Where workers are.

    Attributes:
      workers: number of workers on this machine; 0: as many as the cluster has places for.
      head: host:port of the head of a Ray cluster; "": one is started, for this machine alone.
    """

    workers: int = 0
    head: str = ""

    @property
    def is_local(self) -> bool:
        """Whether all workers are on this machine."""
        return not self.head

    @property
    def text(self) -> str:
        """As `read_address` reads it."""
        return f"local:{self.workers}" if self.is_local else f"ray://{self.head}"


def read_address(text: str) -> ClusterAddress:
    """Reads `local:N` or `ray://HOST:PORT`.

    Raises:
      UserError: it is neither.
    """
    if match := _LOCAL.fullmatch(text):
        workers = int(match[1])
        if not 1 <= workers <= _MOST_WORKERS:
            raise UserError(f"--cluster={text}: N must be from 1 to {_MOST_WORKERS}")
        return ClusterAddress(workers=workers)
    match = _RAY.fullmatch(text)
    if match is None or not 0 < int(match[1].rpartition(":")[2]) < 2**16:
        raise UserError(
            f"--cluster={text}: it must be local:N, for N workers on this machine, or "
            "ray://HOST:PORT, with what `ray start --head --port=PORT` was told on HOST"
        )
    return ClusterAddress(head=match[1])


def check(address: ClusterAddress) -> None:
    """Checks what can be known before the first stage.

    Raises:
      UserError: Ray is not installed, or the cluster is open to anybody who reaches it.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('--cluster needs Ray: pip install "stair_jax[ray]"')
    if not address.is_local and os.environ.get(AUTH_MODE) != "token":
        raise UserError(
            f"--cluster={address.text}: whoever reaches a Ray cluster without a token can run "
            f"anything on its machines: start it with {AUTH_MODE}=token and a secret {AUTH_TOKEN}, "
            "and set both here too"
        )


def guard(address: ClusterAddress) -> None:
    """Has Ray ask each peer for a token; to be called before Ray is imported.

    A cluster of this machine alone draws a token for itself, and listens at 127.0.0.1.

    Raises:
      UserError: as `check`.
    """
    check(address)
    if address.is_local:
        os.environ[AUTH_MODE] = "token"
        os.environ[_OTHER_MACHINES] = "0"
        os.environ.setdefault(AUTH_TOKEN, secrets.token_hex(32))  # Ray reads it once a process
