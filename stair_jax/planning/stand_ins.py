"""Devices that are counted and not compiled for: estimates of time need no compiler."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import jax

from stair_jax.errors import UserError
from stair_jax.parallel.chips import TPU_KINDS, TPUS, gpu_chip
from stair_jax.parallel.gpus import Gpu
from stair_jax.planning.gpu_compiler import PER_HOST
from stair_jax.planning.topology import (
    LOCAL,
    NAMED_FORMS,
    Topology,
    parse_gpus,
    parse_slice,
    unknown_topology,
)

_KINDS = {chip.name: kind for kind, chip in TPU_KINDS.items()}
_FLAG = "--devices"
_TPU_HOST = 4  # chips


class _Elsewhere:
    """The client of devices of which this process has none, so that no memory is asked about."""

    def process_index(self) -> int:
        """That of no host."""
        return -1


@dataclass(frozen=True)
class StandIn:
    """As much of a `jax.Device` as meshes and sizes depend on.

    Attributes:
      id: number of the device.
      platform: "gpu" or "tpu".
      device_kind: as JAX names it.
      process_index: of its host.
      coords: of a TPU chip in its slice.
      core_on_chip: of a TPU.
      compute_capability: of a GPU.
    """

    id: int
    platform: str
    device_kind: str
    process_index: int
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0
    compute_capability: str = ""

    @property
    def client(self) -> _Elsewhere:
        """Whose devices they are."""
        return _Elsewhere()

    def addressable_memories(self) -> list[jax.Device]:
        """None: they are not known, as of a GPU that is only described."""
        return []


def counted_topology(name: str) -> Topology:
    """Devices by a name such as "h100:8" or "v5p:2x2x2", without a compiler for them.

    Raises:
      UserError: the name is invalid, or "local", whose devices are looked at by a plan.
    """
    if name == LOCAL:
        raise UserError(f"{_FLAG}={name}: name devices, such as h100:8 or v5p:2x2x2")
    if found := parse_slice(name, _FLAG):
        generation, shape = found
        return Topology(name, TPUS[generation], _tpus(generation, shape))
    if gpus := parse_gpus(name, _FLAG):
        gpu, count = gpus
        return Topology(name, gpu_chip(gpu), _gpus(gpu, count))
    raise unknown_topology(name, _FLAG, NAMED_FORMS)


def _tpus(generation: str, shape: list[int]) -> list[jax.Device]:
    sizes = (*shape, 1, 1)[:3]
    places = [(x, y, z) for z in range(sizes[2]) for y in range(sizes[1]) for x in range(sizes[0])]
    kind = _KINDS[generation]
    return _devices(
        StandIn(number, "tpu", kind, number // _TPU_HOST, place)
        for number, place in enumerate(places)
    )


def _gpus(gpu: Gpu, count: int) -> list[jax.Device]:
    capability = ".".join(map(str, gpu.capability))
    return _devices(
        StandIn(number, "gpu", gpu.kind, number // PER_HOST, compute_capability=capability)
        for number in range(count)
    )


def _devices(found: Iterable[StandIn]) -> list[jax.Device]:
    return cast(list[jax.Device], list(found))
