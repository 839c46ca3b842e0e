"""The places of a Ray cluster: those of workers, and those of the processes of one program.

A worker has a GPU, all TPUs of a machine, or a machine without any; a process of a program has all
that a machine has.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stair_jax.cluster.address import ClusterAddress
from stair_jax.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where a worker can be, or a process of a program.

    Attributes:
      node: id of the machine in Ray.
      name: address of the machine; of a worker with the number of the place on it.
      options: the resources of the process, as of an actor of Ray.
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


def find_machines(nodes: Sequence[Mapping[str, Any]]) -> list[Place]:
    """The machines of one program, by their addresses: all that are alike, or one with TPUs.

    Where machines differ, those go together that have most GPUs; TPUs of two machines that are no
    slice do not reach each other. Machines without GPUs and TPUs take part where no other is there.

    Args:
      nodes: as `ray.nodes` lists them.
    """
    alike: dict[Hashable, list[Place]] = defaultdict(list)
    for node in nodes:
        resources = node["Resources"]
        gpus, tpus, cpus = (int(resources.get(name, 0)) for name in ("GPU", "TPU", "CPU"))
        if not node["Alive"] or not (gpus or tpus or cpus):
            continue
        kind = sorted(name for name in resources if name.startswith("accelerator_type:"))
        options: dict[str, Any] = {"num_gpus": gpus, "num_cpus": 0}
        group: Hashable = (1, gpus, *kind)
        if not gpus and tpus:
            options, group = {"num_cpus": 0, "resources": {"TPU": tpus}}, (1, node["NodeID"])
        elif not gpus:
            options, group = {"num_cpus": cpus}, (0,)
        alike[group].append(Place(node["NodeID"], node["NodeManagerAddress"], options))

    def size(group: Any) -> tuple[int, int]:
        """Machines with accelerators first, then by the number of these."""
        each = alike[group][0].options
        count = each.get("num_gpus") or each.get("resources", {}).get("TPU", 1)
        return group[0], count * len(alike[group])

    if not alike:
        return []
    return sorted(alike[max(alike, key=size)], key=lambda place: (place.name, place.node))


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
