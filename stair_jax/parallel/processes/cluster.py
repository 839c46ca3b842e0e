"""Multi-process initialisation (`jax.distributed`), by flags or by detecting the cluster."""

import argparse
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from stair_jax.errors import UserError
from stair_jax.parallel.processes.aborts import delay_aborts
from stair_jax.parallel.processes.credentials import read_token
from stair_jax.parallel.processes.hello import MOST_PROCESSES, Member
from stair_jax.parallel.processes.interfaces import listen
from stair_jax.parallel.processes.rendezvous import meet
from stair_jax.parallel.processes.tls import check_tls
from stair_jax.parallel.processes.watchdog import Watchdog
from stair_jax.settings import attribute_texts

_FLAGS = ("coordinator", "num_processes", "process_id")
_BIND_ADDRESS = "JAX_COORDINATOR_BIND_ADDRESS"  # environment variable of JAX
_LONGEST = 31 * 24 * 3600  # seconds: longer than any run waits, and a 32-bit number in JAX


@dataclass(frozen=True)
class Cluster:
    """The processes of a run, as given by the command line.

    Attributes:
      coordinator: host:port of process 0, the same for all processes; "": JAX detects it and the
        next two from the metadata of a TPU slice, SLURM or Kubernetes.
      num_processes: number of processes of the run; None: detected.
      process_id: index of this process, from 0; None: detected.
      start_timeout: seconds within which all processes have to connect.
      heartbeat_timeout: seconds without a heartbeat after which JAX ends the run. Has to be longer
        than a machine may be too busy to send one, e.g. with a compilation. A process that dies is
        noticed at once, without this (`watchdog.py`).
      listen: address or host name of the interface on which process 0 listens; 0.0.0.0: all; "": as
        the environment variable JAX_COORDINATOR_BIND_ADDRESS says, else that of the coordinator.
    """

    coordinator: str = ""
    num_processes: int | None = None
    process_id: int | None = None
    start_timeout: int = 300
    heartbeat_timeout: int = 900
    listen: str = ""

    def __post_init__(self) -> None:
        """Raises a UserError that names a missing or invalid flag."""
        given = (
            bool(self.coordinator),
            self.num_processes is not None,
            self.process_id is not None,
        )
        if any(given) and not all(given):
            missing = ", ".join(
                f"--{name}" for name, there in zip(_FLAGS, given, strict=True) if not there
            )
            raise UserError(
                f"{missing} is missing: give --coordinator=host:port --num_processes=N "
                "--process_id=I together, or --distributed on a cluster that JAX knows"
            )
        for name in ("start_timeout", "heartbeat_timeout"):
            seconds = getattr(self, name)
            if not 1 <= seconds <= _LONGEST:
                raise UserError(f"--{name} is {seconds}: it must be from 1 to {_LONGEST} seconds")
        if self.num_processes is None or self.process_id is None:
            return
        if not _is_address(self.coordinator):
            raise UserError(
                f"--coordinator is {self.coordinator!r}: it must be host:port of process 0, "
                "e.g. --coordinator=10.0.0.1:12345"
            )
        if not 1 <= self.num_processes <= MOST_PROCESSES:
            raise UserError(
                f"--num_processes is {self.num_processes}: it must be from 1 to {MOST_PROCESSES}"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"--process_id is {self.process_id}: it must be from 0 to "
                f"{self.num_processes - 1}, one below --num_processes"
            )


def _is_address(text: str) -> bool:
    """Whether a text is host:port."""
    match = re.fullmatch(r"\S+:(\d{1,5})", text, re.ASCII)
    return match is not None and 0 < int(match[1]) < 2**16


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that make a command one of several processes."""
    group = parser.add_argument_group("a run of several processes (docs/clusters.md)")
    group.add_argument(
        "--distributed", action="store_true", help="the cluster says which processes there are"
    )
    texts = attribute_texts(Cluster)
    for field in fields(Cluster):
        kind = str if field.type is str else int
        group.add_argument(f"--{field.name}", type=kind, help=texts[field.name], metavar="X")


def read_flags(options: argparse.Namespace) -> Cluster | None:
    """The processes of the run by the parsed flags of `add_flags`; None for a run of one process.

    A run has several processes only if a flag says so, never because a cluster was detected: a
    command that is tried out on one host of a cluster must not wait for the others.

    Raises:
      UserError: a flag is missing or has a wrong value, or two flags contradict each other.
    """
    found = {field.name: getattr(options, field.name) for field in fields(Cluster)}
    given: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    if not options.distributed:
        return Cluster(**given) if given.keys() & set(_FLAGS) else None
    if both := [name for name in _FLAGS if name in given]:
        raise UserError(f"--distributed finds out what --{both[0]} says: give one of the two")
    return Cluster(**given)


def join(cluster: Cluster) -> Watchdog | None:
    """Connects this process to the others of its run. To be called before JAX touches its devices.

    The processes first meet over plain TCP (`rendezvous.py`) and only then initialise JAX: if one
    is missing, JAX would abort the others without naming it.

    Returns:
      the connection to the other processes; None if there is only this one.

    Raises:
      UserError: no cluster was detected, the command lines of the processes contradict each other,
        or there would be no TLS though it is asked for.
      LostProcess: some processes did not connect in time; names them.
    """
    import jax

    check_tls(os.environ, hasattr(jax.config, "jax_mtls_cert_file"), jax.__version__)
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)  # hides notes on proxies
    member, devices = _find(cluster)
    if member.count == 1:
        return None
    host, port = member.address
    of_jax = os.environ.get(_BIND_ADDRESS, "")
    bind_address, listening = None, None
    if member.index == 0:
        interface = cluster.listen or of_jax.rpartition(":")[0].strip("[]")
        listening = listen(host, port, interface, member.count)
        bind_address = of_jax or listening.address(port)
    watchdog = Watchdog(member, meet(member, cluster.start_timeout, listening))
    delay_aborts()
    jax.distributed.initialize(
        member.coordinator,
        member.count,
        member.index,
        local_device_ids=devices,
        cluster_detection_method="deactivate",  # `_find` has done it
        initialization_timeout=cluster.start_timeout,
        heartbeat_timeout_seconds=cluster.heartbeat_timeout,
        coordinator_bind_address=bind_address,
    )
    return watchdog


def _find(cluster: Cluster) -> tuple[Member, list[int] | None]:
    """Returns this process, and the indices of the local devices that it uses (None: all)."""
    if cluster.num_processes is not None and cluster.process_id is not None:
        named = (cluster.coordinator, cluster.num_processes, cluster.process_id)
        return Member(*named, token=read_token()), None
    from jax._src.clusters import ClusterEnv

    try:
        detected = ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"),
            None,
            None,
            slurm_devices(os.environ),
            None,
            cluster.start_timeout,
        )
    except Exception as error:  # from a cluster's API, of any class: its text is what helps
        raise UserError(f"--distributed: {error}") from error
    coordinator, count, index, devices = detected
    if coordinator is None or count is None or index is None:
        raise UserError(
            "--distributed found no TPU slice, SLURM or Kubernetes around this process: give "
            "--coordinator=host:port --num_processes=N --process_id=I to each process instead"
        )
    member = Member(coordinator, count, index, token=read_token())
    return member, None if devices is None else list(devices)


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Indices of all GPUs of the node if a SLURM task has the node to itself, else None.

    JAX would give each SLURM task one GPU only, by its index on the node. With None, JAX decides:
    one GPU per task under SLURM, all devices elsewhere.
    """
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if "JAX_LOCAL_DEVICE_IDS" in environment or not gpus.isdigit():
        return None
    return list(range(int(gpus))) if re.fullmatch(r"1(\(x\d+\))?", tasks) else None
