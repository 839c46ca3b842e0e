"""Knocks at a Ray cluster without a token: whoever is let in would be a stranger.

A process of its own, `python -m stair_jax.cluster.stranger HOST:PORT`, as Ray reads once a process
whether it has a token. A driver that has one is let in by a cluster that asks for none.
"""

import importlib
import os
import subprocess
import sys

from stair_jax.cluster.address import AUTH_MODE, AUTH_TOKEN, ClusterAddress
from stair_jax.errors import UserError

_REFUSED, _LET_IN = 10, 11  # exit statuses
_SECONDS = 120.0


def check_closed(address: ClusterAddress) -> None:
    """Checks that a cluster turns away who has no token.

    Raises:
      UserError: it does not, or cannot be reached.
    """
    environment = {name: value for name, value in os.environ.items() if name != AUTH_TOKEN}
    command = [sys.executable, "-m", __spec__.name, address.head]
    try:
        done = subprocess.run(
            command,
            env=environment | {AUTH_MODE: "disabled"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"--cluster={address.text} does not answer within {_SECONDS:.0f} s"
        ) from error
    if done.returncode == _LET_IN:
        raise UserError(
            f"--cluster={address.text} lets in who has no token, and whoever reaches it can run "
            f"anything on its machines: start it anew with {AUTH_MODE}=token and a secret "
            f"{AUTH_TOKEN}"
        )
    if done.returncode != _REFUSED:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise UserError(f"--cluster={address.text} cannot be reached: {said[:300]}")


def _knock(head: str) -> int:
    from ray.exceptions import AuthenticationError

    raylet = importlib.import_module("ray._raylet")  # compiled, and without types
    try:
        raylet.GcsClient(address=head).internal_kv_get(b"stair_jax", b"stair_jax", timeout=10)
    except AuthenticationError:
        return _REFUSED
    return _LET_IN


if __name__ == "__main__":
    sys.exit(_knock(sys.argv[1]))
