"""A driver's connection to Ray, which only this room imports, when it is used."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from stair_jax.closing import Closing
from stair_jax.cluster.address import ClusterAddress, guard
from stair_jax.cluster.private_folder import PrivateFolder
from stair_jax.cluster.stranger import check_closed
from stair_jax.errors import UserError

_STORE_BYTES = 128 * 2**20  # of a cluster of this machine alone: orders and reports are small
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayConnection(Closing):
    """A Ray cluster that is reached, or that was started on this machine.

    Actors live as long as this connection. Ray ends them too where this process is killed.

    Attributes:
      address: of the cluster.
      ray: the module.
    """

    def __init__(self, address: ClusterAddress):
        """Connects to the cluster, or starts one on this machine.

        Raises:
          UserError: Ray is not installed, the cluster is open to strangers, or cannot be reached.
        """
        guard(address)
        if not address.is_local:
            check_closed(address)
        self.address = address
        self._private = PrivateFolder() if address.is_local else None
        try:
            self.ray = _connect(address, self._private)
        except BaseException:
            self._forget()
            raise

    def close(self) -> None:
        """Ends all actors, and a cluster that was started here."""
        try:
            self.ray.shutdown()
        finally:
            self._forget()

    def nodes(self) -> list[dict[str, Any]]:
        """The machines, as Ray lists them."""
        nodes: list[dict[str, Any]] = self.ray.nodes()
        return nodes

    def start(self, cls: Any, node: str, options: dict[str, Any]) -> Any:
        """An actor of a class, on one machine and no other; it is made once, and never again.

        Args:
          cls: as `ray.remote` gives it.
          node: id of the machine.
          options: the resources of the actor.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return cls.options(
            **options, max_restarts=0, max_task_retries=0, scheduling_strategy=there
        ).remote()

    def kill(self, actor: Any) -> None:
        """Kills an actor, wherever it is."""
        with suppress(Exception):  # where the cluster is out of reach too
            self.ray.kill(actor)

    def _forget(self) -> None:
        if self._private is not None:
            self._private.close()


def reason(error: Exception) -> str:
    """What Ray says of the end of an actor: its kind, or the last line of a traceback."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {lines[-1].strip()[:200]}" if kind.startswith("RayTaskError") else kind


def _connect(address: ClusterAddress, private: PrivateFolder | None) -> ModuleType:
    """Ray, connected to a cluster."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    try:
        with _own_handlers(), warnings.catch_warnings():
            # JAX warns of what Ray does before a process of its own becomes another program.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            ray.init(
                **_arguments(address, private), log_to_driver=False, logging_level=logging.ERROR
            )
    except Exception as error:  # of any class: its text is what helps
        text = " ".join(str(error).split())[:300]
        raise UserError(f"--cluster={address.text} cannot be reached: {text}") from error
    module: ModuleType = ray
    return module


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Context in which nobody puts other handlers of signals in the place of ours.

    That of Ray in Python raises SystemExit, which gets lost at some places of Ray, and the signal
    with it. The one in C++, which aborts, Python does not see: ours is set anew behind it.
    """
    set_handler: Any = signal.signal
    signal.signal = lambda signalnum, handler: signal.getsignal(signalnum)
    try:
        yield
    finally:
        signal.signal = set_handler
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.getsignal(number))


def _arguments(address: ClusterAddress, private: PrivateFolder | None) -> dict[str, Any]:
    if private is None:
        return {"address": address.head}
    return {
        "address": "local",
        "num_cpus": address.workers,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": "127.0.0.1",  # listens there alone
        "_temp_dir": str(private.inside),
    }
