"""Where the jobs of one host run: shares of its GPUs, and cores for those that need none."""

import glob
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stair_jax.errors import UserError
from stair_jax.run.job_list import Kind

_LEAST_CORES = 2  # of each job on CPUs; with fewer all jobs share all cores
_MOST_CORES = 3  # of one beside GPUs, whose jobs need the others to compile and to feed them


@dataclass(frozen=True)
class Place:
    """Where one job at a time runs.

    Attributes:
      device: "gpu 0", or "cpu".
      kind: of the jobs that it takes.
      environment: variables of the job's process.
      cores: that its process may use; empty: all.
    """

    device: str
    kind: Kind
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def find_gpus() -> list[str]:
    """The GPUs of this host as `CUDA_VISIBLE_DEVICES` names them, which counts where it is set."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        try:
            visible = ",".join(subprocess.check_output(command, text=True).split())
        except (OSError, subprocess.CalledProcessError):  # a container without it
            visible = ",".join(map(str, range(len(glob.glob("/dev/nvidia[0-9]*")))))
    return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]


def choose_gpus(found: Sequence[str], count: int | None) -> list[str]:
    """The first `count` GPUs; None: all.

    Raises:
      UserError: there are fewer.
    """
    if count is not None and count > len(found):
        raise UserError(f"--gpus={count}: this host shows {len(found)} GPUs; --gpus=0 runs on CPUs")
    return list(found if count is None else found[:count])


def take_turns(environment: Mapping[str, str]) -> bool:
    """Whether processes that share a GPU take turns on it: NVIDIA's MPS does not run.

    Args:
      environment: of the processes.
    """
    pipe = environment.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return not os.path.exists(os.path.join(pipe, "control"))


def make_places(
    gpus: Sequence[str], per_gpu: int, memory: float, cpu_jobs: int, cores: Sequence[int]
) -> list[Place]:
    """The places of a host.

    Args:
      gpus: their names; without one, the jobs of GPUs run at the places on CPUs.
      per_gpu: jobs that share a GPU.
      memory: share of a GPU's memory that these may take together.
      cpu_jobs: jobs on CPUs at a time.
      cores: of this host, or none to keep nothing apart. Each job on CPUs has some of its own,
        where there are enough; beside GPUs at most half of all together.
    """
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{int(100 * memory / per_gpu) / 100:g}"}
    hidden = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    each = min(len(cores) // 2 // cpu_jobs, _MOST_CORES) if gpus else len(cores) // cpu_jobs
    each = each if each >= _LEAST_CORES else 0
    rest = frozenset(cores[each * cpu_jobs :]) if each else frozenset()
    on_gpus = [
        Place(f"gpu {gpu}", "gpu", {"CUDA_VISIBLE_DEVICES": gpu, **share}, rest)
        for _ in range(per_gpu)
        for gpu in gpus
    ]
    on_cpus = [
        Place("cpu", "cpu", hidden, frozenset(cores[number * each : (number + 1) * each]))
        for number in range(cpu_jobs)
    ]
    return on_gpus + on_cpus


def free_place(kind: Kind, free: Sequence[Place], places: Sequence[Place]) -> Place | None:
    """A free place for a job of a kind, on the device that has most room; None: there is none."""
    kind = kind if any(place.kind == kind for place in places) else "cpu"
    fitting = [place for place in free if place.kind == kind]
    devices = [place.device for place in free]
    return max(fitting, key=lambda place: devices.count(place.device), default=None)
