"""Hardware limits of accelerators: memory, peak FLOP/s, memory bandwidth.

Peaks are from the vendors' data sheets, for dense bfloat16. The memory of a TPU is what its
compiler allows for one program, slightly less than the data sheet says, as the runtime reserves the
rest.
"""

import os
from dataclasses import dataclass, replace

import jax

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
    """

    name: str
    memory: float
    flops: float | None = None
    bandwidth: float | None = None


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
# By prefix of `device_kind`: the first match counts, so longer prefixes come before shorter ones.
# Memory is that of the data sheet; `local_chip` replaces it.
_LOCAL = {
    "NVIDIA A100-SXM4-40GB": Chip("A100-40GB", 40 * _GIGA, 312 * _TERA, 1555 * _GIGA),
    "NVIDIA A100": Chip("A100", 80 * _GIGA, 312 * _TERA, 2039 * _GIGA),
    "NVIDIA H100": Chip("H100", 80 * _GIGA, 989 * _TERA, 3350 * _GIGA),
    "NVIDIA H200": Chip("H200", 141 * _GIGA, 989 * _TERA, 4800 * _GIGA),
    "TPU v4": TPUS["v4"],
    "TPU v5 lite": TPUS["v5e"],
    "TPU v5": TPUS["v5p"],
    "TPU v6 lite": TPUS["v6e"],
}


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
    """Bytes of memory that a program may use on a device, of this machine or of another one."""
    is_here = any(device is own for own in jax.local_devices())
    return (local_chip if is_here else device_chip)(device).memory


def device_chip(device: jax.Device) -> Chip:
    """Limits by the data sheet, for a device that need not be present.

    For an unknown kind, and for CPUs, the memory is infinite and the peaks are None.
    """
    kind = device.device_kind
    known = next((chip for start, chip in _LOCAL.items() if kind.startswith(start)), None)
    return known or Chip(kind, float("inf"))
