"""Topologies to compile for: TPU slices or GPUs that need not be there, or the local devices."""

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from stair_jax.errors import UserError
from stair_jax.parallel.chips import GIB, TPUS, Chip, gpu_chip, local_chip
from stair_jax.parallel.gpus import GPUS, Gpu, memory_fraction, most_fraction
from stair_jax.planning.gpu_compiler import PER_HOST, gpu_devices

LOCAL = "local"
_SLICES = "v4:2x2x1, v5p:2x2x1, v5e:4x4, v6e:4x4 (other shapes too)"
_NAMES = f"GPUs as in h100:8: {', '.join(GPUS)}"
NAMED_FORMS = f"{_SLICES}, or {_NAMES}"
KNOWN_FORMS = f"{_SLICES}, or {LOCAL}, or {_NAMES}"
_SLICE = re.compile(r"(v\w+):(\d+(?:x\d+)+)")
_GPUS = re.compile(r"([\w-]+)(?::(\d{1,9}))?")
_MOST_GPUS = 1024
_DIMENSIONS = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}
_MOST_CHIPS = {"v4": 4096, "v5p": 8960, "v5e": 256, "v6e": 256}
_HOST = (2, 2, 1)  # chips per host along each dimension; a slice of one chip is an exception
# With these libtpu compiles on a machine without TPUs, and beside another process that uses it.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Topology:
    """Devices of one kind that programs are compiled for.

    Attributes:
      name: as given, e.g. "v5p:2x2x1".
      chip: the limits of each.
      devices: of a slice elsewhere: good for compilation only.
      note: how the figures were had, for the reader; "": by the compiler alone.
    """

    name: str
    chip: Chip
    devices: Sequence[jax.Device]
    note: str = ""


def get_topology(name: str) -> Topology:
    """The topology with a name such as "v5p:2x2x1" (shape in chips), "h100:8" or "local".

    Raises:
      UserError: the name is invalid, no such slice exists, or the compiler is not installed.
    """
    if name == LOCAL:
        devices = jax.devices()
        return Topology(name, local_chip(devices[0]), devices)
    if found := parse_slice(name):
        generation, shape = found
        return Topology(name, TPUS[generation], _devices(name, _options(generation, shape)))
    if gpus := parse_gpus(name):
        return _gpus(name, *gpus)
    raise unknown_topology(name)


def parse_slice(name: str, flag: str = "--plan") -> tuple[str, list[int]] | None:
    """Generation and shape of a TPU slice, in chips; None: it is the name of none.

    Raises:
      UserError: there is no slice of this shape; names the flag.
    """
    match = _SLICE.fullmatch(name)
    if not match or match[1] not in TPUS:
        return None
    shape = [int(size) for size in match[2].split("x")]
    _check(f"{flag}={name}", match[1], shape)
    return match[1], shape


def parse_gpus(name: str, flag: str = "--plan") -> tuple[Gpu, int] | None:
    """Model and number of GPUs; None: it is the name of none.

    Raises:
      UserError: there cannot be so many; names the flag.
    """
    match = _GPUS.fullmatch(name)
    if not match or match[1] not in GPUS:
        return None
    count = int(match[2] or 1)
    whole_hosts = count <= PER_HOST or count % PER_HOST == 0
    if not (whole_hosts and 0 < count <= _MOST_GPUS):
        raise UserError(
            f"{flag}={name}: there can be 1 to {PER_HOST} GPUs of one host, or a multiple of "
            f"{PER_HOST} up to {_MOST_GPUS}"
        )
    return GPUS[match[1]], count


def unknown_topology(name: str, flag: str = "--plan", forms: str = KNOWN_FORMS) -> UserError:
    """An error about a name that no devices have, to be raised; says which forms they have."""
    known = f"known are {forms}"
    return UserError(f"{flag}={name} is not a known topology: {_nearest(name) or known}")


def _nearest(name: str) -> str:
    """The names of GPUs that may be meant, or ""."""
    model = name.partition(":")[0]
    longer = [gpu for gpu in GPUS if model and gpu.startswith(model)]
    near = longer or difflib.get_close_matches(model, GPUS, n=1)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _gpus(name: str, gpu: Gpu, count: int) -> Topology:
    note = (
        f"JAX takes {memory_fraction():g} of a GPU's {gpu.memory / GIB:.1f} GiB: "
        f"XLA_PYTHON_CLIENT_MEM_FRACTION, by default 0.75, at most {most_fraction(gpu.memory):g}.\n"
        "Compiled by XLA for such GPUs, without one; the workspaces of cuDNN are accounted."
    )
    return Topology(name, gpu_chip(gpu), gpu_devices(name, gpu, count), note)


def _check(named: str, generation: str, shape: Sequence[int]) -> None:
    """Raises a UserError for a shape that no slice of this generation has."""
    if len(shape) != _DIMENSIONS[generation]:
        example = "x".join(map(str, _HOST[: _DIMENSIONS[generation]]))
        raise UserError(
            f"{named}: a slice of {generation} has {_DIMENSIONS[generation]} dimensions, "
            f"such as {generation}:{example}"
        )
    divisible = all(size % host == 0 for size, host in zip(shape, _HOST, strict=False))
    if math.prod(shape) != 1 and not (divisible and min(shape) > 0):
        raise UserError(
            f"{named}: a slice is made of hosts of 2x2 chips, so that its first two sizes are even"
        )
    if math.prod(shape) > _MOST_CHIPS[generation]:
        raise UserError(
            f"{named}: a slice of {generation} has at most {_MOST_CHIPS[generation]} chips"
        )


def _options(generation: str, shape: Sequence[int]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip, as on real hardware
    return options


def _devices(name: str, options: dict[str, Any]) -> Sequence[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--plan={name} needs the compiler for TPUs, libtpu: pip install 'stair_jax[tpu]'"
        )
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # do not claim the accelerators of this machine
    try:
        return topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--plan={name}: libtpu rejects it: {reason}") from error
