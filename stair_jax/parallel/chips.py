"""What a chip can do at most: memory, arithmetic, bandwidth.

Peaks are those of the makers' data sheets, dense bfloat16. The memory of a TPU is what its compiler
gives to one program, a little less than the data sheet says: the runtime keeps the rest.
"""

import os
from dataclasses import dataclass, replace

import jax

GIB = 2**30
_TERA = 1e12
_GIGA = 1e9


@dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
      name: as in `v5p`.
      memory: bytes that a program may use.
      flops: bfloat16 operations a second at most; None: not known.
      bandwidth: bytes a second between memory and chip at most; None: not known.
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
# By what `device_kind` begins with; the memory is the data sheet's, see `local_chip`.
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
    """The chip of a device of this machine; its memory is what JAX may use of it now.

    The devices of a CPU share the memory of the machine, and no bound on time is known of them.
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
    """The chip of a device that need not be there, as the data sheet of its kind has it.

    Of a kind that is not known, neither memory nor speed is; so it is of CPUs.
    """
    kind = device.device_kind
    known = next((chip for start, chip in _LOCAL.items() if kind.startswith(start)), None)
    return known or Chip(kind, float("inf"))
