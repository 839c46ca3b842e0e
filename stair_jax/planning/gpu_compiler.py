"""XLA's compiler for GPUs that need not be there.

JAX's plugin for CUDA compiles for a described GPU on any machine, without a driver. Three things
then come from here: the description, answers to what JAX's binding of cuDNN would ask a GPU, and
the memory that cuDNN would (`workspaces.py`).
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import topologies

from stair_jax.errors import UserError
from stair_jax.parallel.chips import gpu_chip, is_here
from stair_jax.parallel.gpus import Gpu

PER_HOST = 8
_CUDNN = 91000  # version that is taken to be there: 9.10.0
_CUDA = "13.0.0"
# Of the memory in a description, the compiler's scheduler lets a program use so much.
_SCHEDULED = 0.8
# By compute capability: bytes of shared memory of a multiprocessor and most of one block,
# threads of a multiprocessor, float32 units (CUDA C++ Programming Guide, "Compute Capabilities").
_LIMITS = {
    (8, 0): (167936, 166912, 2048, 64),
    (8, 6): (102400, 101376, 1536, 128),
    (8, 9): (102400, 101376, 1536, 128),
    (9, 0): (233472, 232448, 2048, 128),
    (10, 0): (233472, 232448, 2048, 128),
    (12, 0): (102400, 101376, 1536, 128),
}


def gpu_devices(name: str, gpu: Gpu, count: int) -> Sequence[jax.Device]:
    """Devices to compile for, `PER_HOST` of them on each host.

    Args:
      name: of the topology, for messages.
      gpu: of which kind they are.
      count: how many.

    Raises:
      UserError: the compiler is not installed, or refuses the description.
    """
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # do not claim the accelerators of this machine
    hosts, each = max(1, count // PER_HOST), min(count, PER_HOST)
    described = {"target_config": describe(gpu), "topology": f"1x{hosts}x{each}"}
    try:
        return topologies.get_topology_desc(platform="cuda", **described).devices
    except NotImplementedError as error:
        raise UserError(
            f"--plan={name} needs the compiler for CUDA, with or without a GPU: "
            "pip install 'stair_jax[gpu-plans]' (on Linux)"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--plan={name}: XLA rejects it: {reason}") from error


def describe(gpu: Gpu) -> str:
    """A GPU as text of XLA's `GpuTargetConfigProto` (xla/backends/gpu/target_config/specs)."""
    shared, of_block, threads, units = _LIMITS[gpu.capability]
    major, minor = gpu.capability
    version = f"{_CUDNN // 10000}.{_CUDNN // 100 % 100}.{_CUDNN % 100}"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {of_block}
  threads_per_core_limit: {threads}
  core_count: {gpu.cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {gpu.bandwidth:.0f}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: 1.5
  device_memory_size: {gpu_chip(gpu).memory / _SCHEDULED:.0f}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  runtime_version: "{_CUDA}"
  driver_version: "{_CUDA}"
  compile_time_toolkit_version: "{_CUDA}"
  dnn_version: "{version}"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {_CUDNN // 10000} minor: {_CUDNN // 100 % 100} }}
device_description_str: "{gpu.kind}"
"""


def is_described(device: jax.Device) -> bool:
    """Whether a device is a GPU that is only described."""
    return device.platform == "gpu" and not is_here(device)


@contextmanager
def standing_in(device: Any) -> Iterator[None]:
    """Context in which JAX's binding of cuDNN takes a described GPU to be there."""
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    own = tuple(map(int, device.compute_capability.split(".")))

    def is_at_least(capability: str) -> bool:
        return own >= tuple(map(int, capability.split(".")))

    answers = {
        "check_compute_capability": is_at_least,
        "check_cudnn_version": lambda: _CUDNN,
    }
    before = {name: getattr(module, name) for name in answers}
    try:
        vars(module).update(answers)
        yield
    finally:
        vars(module).update(before)
