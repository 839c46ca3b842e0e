"""NVIDIA's GPUs by name: memory, peaks, and what XLA's compiler asks about them.

Memory is the whole of a device as CUDA reports it, which is less than the data sheet says, and
differs by some hundredths between drivers: the least that out-of-memory messages of frameworks
name. JAX takes a share of it when it starts, `memory_fraction`. Peaks are from the data sheets,
for dense bfloat16 with sums in float32.
"""

import os
from dataclasses import dataclass

from stair_jax.errors import UserError

_GIB = 2**30
_TERA = 1e12
_GIGA = 1e9
_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_DEFAULT_FRACTION = 0.75
# Outside of what JAX takes: the CUDA context, kernels, handles of cuBLAS and cuDNN. 0.62 GiB on an
# H200 (`benchmarks/memory.py`, 2026-11-30), and room for NCCL's buffers or a screen.
_CONTEXT = 1.0 * _GIB


@dataclass(frozen=True)
class Gpu:
    """A model of GPU.

    Attributes:
      name: in plans, e.g. "h100".
      kind: how `jax.Device.device_kind` starts.
      memory: bytes, all of them.
      flops: peak bfloat16 FLOP/s.
      bandwidth: peak bytes/s between memory and chip.
      capability: CUDA compute capability, (major, minor).
      cores: multiprocessors.
      cache: bytes of the L2 cache.
    """

    name: str
    kind: str
    memory: float
    flops: float
    bandwidth: float
    capability: tuple[int, int]
    cores: int
    cache: int


def _gpu(
    name: str,
    kind: str,
    gib: float,
    tera: float,
    giga: float,
    capability: tuple[int, int],
    cores: int,
    cache_mib: int,
) -> Gpu:
    bandwidth, cache = giga * _GIGA, cache_mib * 2**20
    return Gpu(name, kind, gib * _GIB, tera * _TERA, bandwidth, capability, cores, cache)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a10g", "NVIDIA A10G", 21.9, 70, 600, (8, 6), 80, 6),
        _gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", 39.3, 312, 1555, (8, 0), 108, 40),
        _gpu("a100-80gb", "NVIDIA A100-SXM4-80GB", 79.1, 312, 2039, (8, 0), 108, 40),
        _gpu("a6000", "NVIDIA RTX A6000", 47.4, 155, 768, (8, 6), 84, 6),
        _gpu("b200", "NVIDIA B200", 178.3, 2250, 7672, (10, 0), 148, 126),
        _gpu("gh200", "NVIDIA GH200", 94.5, 989, 4000, (9, 0), 132, 50),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 79.1, 989, 3350, (9, 0), 132, 50),
        _gpu("h100-pcie", "NVIDIA H100 PCIe", 79.1, 756, 2039, (9, 0), 114, 50),
        _gpu("h200", "NVIDIA H200", 139.8, 989, 4800, (9, 0), 132, 50),
        _gpu("l4", "NVIDIA L4", 21.9, 121, 300, (8, 9), 58, 48),
        _gpu("l40s", "NVIDIA L40S", 44.3, 362, 864, (8, 9), 142, 96),
        _gpu("rtx3090", "NVIDIA GeForce RTX 3090", 23.5, 71, 936, (8, 6), 82, 6),
        _gpu("rtx4090", "NVIDIA GeForce RTX 4090", 23.5, 165, 1008, (8, 9), 128, 72),
        _gpu("rtx5090", "NVIDIA GeForce RTX 5090", 31.3, 209, 1792, (12, 0), 170, 96),
        _gpu("rtx6000-ada", "NVIDIA RTX 6000 Ada", 47.3, 364, 960, (8, 9), 142, 96),
    )
}
_OTHER_KINDS = {  # of the same limits
    "NVIDIA A100": "a100-80gb",
    "NVIDIA A100-PCIE-40GB": "a100-40gb",
    "NVIDIA H100": "h100",
}


def gpu_of_kind(kind: str) -> Gpu | None:
    """The GPU of a `jax.Device.device_kind`; None where it is not known."""
    kinds = {gpu.kind: gpu.name for gpu in GPUS.values()} | _OTHER_KINDS
    # "NVIDIA L40S" starts like "NVIDIA L4", which it is not.
    found = [start for start in kinds if f"{kind} ".startswith((f"{start} ", f"{start}-"))]
    return GPUS[kinds[max(found, key=len)]] if found else None


def memory_fraction() -> float:
    """The share of a GPU's memory that JAX takes when it starts.

    `XLA_PYTHON_CLIENT_MEM_FRACTION`, by default three quarters (JAX's documentation, "GPU memory
    allocation").

    Raises:
      UserError: the variable is no share.
    """
    text = os.environ.get(_FRACTION, "")
    try:
        fraction = float(text or _DEFAULT_FRACTION)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise UserError(f"{_FRACTION}={text}: it must be a number above 0 and at most 1")
    return fraction


def most_fraction(whole: float) -> float:
    """The largest share of `whole` bytes that leaves room for what is outside of JAX's pool."""
    return int(100 * (1 - _CONTEXT / whole)) / 100


def fraction_advice(needed: float, whole: float) -> str:
    """What to set so that `needed` bytes fit a GPU of `whole` bytes; "" where nothing helps."""
    fraction = -int(-100 * needed // whole) / 100  # rounded up
    return f"{_FRACTION}={fraction:g}" if fraction <= most_fraction(whole) else ""
