"""The places of a Ray cluster in which a worker can be: one a GPU, one a TPU host, or one a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stair_jax.cluster.address import ClusterAddress
from stair_jax.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where a worker can be.

    Attributes:
      node: id of the machine in Ray.
      name: address of the machine and number of the place on it.
      options: the resources of the worker, as of an actor of Ray.
    """

    node: str
    name: str
    options: Mapping[str, Any] = field(hash=False)


def find_places(nodes: Sequence[Mapping[str, Any]], address: ClusterAddress) -> list[Place]:
    """The places of all machines that are up.

    A machine with GPUs has one place a GPU, and one with TPUs a single one with all of its chips.
    Any other one has `address.workers` places, or a single one with all of its CPUs.

    Args:
      nodes: as `ray.nodes` lists them.
      address: of the cluster.

    Raises:
      UserError: this machine has fewer GPUs than it is to have workers.
    """
    places = []
    for node in nodes:
        if node["Alive"]:
            options = _options(node["Resources"], address)
            host = node["NodeManagerAddress"]
            places += [
                Place(node["NodeID"], f"{host}/{index}", each) for index, each in enumerate(options)
            ]
    return places


def _options(resources: Mapping[str, float], address: ClusterAddress) -> list[dict[str, Any]]:
    """Of each place of a machine."""
    gpus, tpus, cpus = (int(resources.get(name, 0)) for name in ("GPU", "TPU", "CPU"))
    if gpus:
        if address.workers > gpus:
            raise UserError(f"--cluster={address.text}: this machine has {gpus} GPUs")
        return [{"num_gpus": 1, "num_cpus": 0}] * (address.workers or gpus)
    if tpus:
        if address.workers > 1:
            raise UserError(
                f"--cluster={address.text}: one worker has all TPUs of a machine: local:1"
            )
        return [{"num_cpus": 0, "resources": {"TPU": tpus}}]
    if address.workers:
        return [{"num_cpus": 1}] * address.workers
    return [{"num_cpus": cpus}] if cpus else []
