"""Hardware limits of accelerators: memory, peak FLOP/s, memory bandwidth.

Peaks are from the vendors' data sheets, for dense bfloat16. The memory of a TPU is what its
compiler allows for one program, slightly less than the data sheet says, as the runtime reserves the
rest.
"""

import os
from dataclasses import dataclass, replace

import jax

from stair_jax.parallel.gpus import Gpu, gpu_of_kind, memory_fraction

GIB = 2**30
_TERA = 1e12
_GIGA = 1e9


@dataclass(frozen=True)
class Chip:
    """Limits of one device.

    Attributes:
      name: e.g. "v5p".
      memory: bytes that a program may use.
      flops: peak bfloat16 FLOP/s; None if not known.
      bandwidth: peak bytes/s between device memory and chip; None if not known.
      whole: bytes of all memory, where a program may be let use more than `memory` of it.
    """

    name: str
    memory: float
    flops: float | None = None
    bandwidth: float | None = None
    whole: float | None = None


# https://cloud.google.com/tpu/docs (v4, v5e, v5p, v6e)
TPUS = {
    chip.name: chip
    for chip in (
        Chip("v4", 30.75 * GIB, 275 * _TERA, 1228 * _GIGA),
        Chip("v5e", 15.75 * GIB, 197 * _TERA, 819 * _GIGA),
        Chip("v5p", 95.74 * GIB, 459 * _TERA, 2765 * _GIGA),
        Chip("v6e", 31.25 * GIB, 918 * _TERA, 1640 * _GIGA),
    )
}
TPU_KINDS = {  # by prefix of `device_kind`
    "TPU v4": TPUS["v4"],
    "TPU v5 lite": TPUS["v5e"],
    "TPU v5": TPUS["v5p"],
    "TPU v6 lite": TPUS["v6e"],
}


def gpu_chip(gpu: Gpu) -> Chip:
    """Limits of a GPU, of whose memory JAX takes its share (`gpus.memory_fraction`)."""
    memory = memory_fraction() * gpu.memory
    return Chip(gpu.name.upper(), memory, gpu.flops, gpu.bandwidth, gpu.memory)


def local_chip(device: jax.Device) -> Chip:
    """Limits of a device of this machine, with the memory that JAX may actually use.

    CPU devices get equal shares of the machine's memory, and have no known peaks.
    """
    if device.platform == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Chip("cpu", memory / jax.local_device_count())
    limit = (device.memory_stats() or {}).get("bytes_limit")
    chip = device_chip(device)
    return replace(chip, memory=limit or chip.memory)


def memory_bytes(device: jax.Device) -> float:
    """Bytes that a program may use on a device: measured if it is local, else by data sheet."""
    return (local_chip if is_here(device) else device_chip)(device).memory


def is_here(device: jax.Device) -> bool:
    """Whether a device is one of this process; others are good for compilation only."""
    return any(device is own for own in jax.local_devices())


def device_chip(device: jax.Device) -> Chip:
    """Limits by the data sheet, for a device that need not be present.

    For an unknown kind, and for CPUs, the memory is infinite and the peaks are None.
    """
    kind = device.device_kind
    if gpu := gpu_of_kind(kind):
        return gpu_chip(gpu)
    # The longest prefix counts.
    starts = sorted(filter(kind.startswith, TPU_KINDS), key=len)
    return TPU_KINDS[starts[-1]] if starts else Chip(kind, float("inf"))
