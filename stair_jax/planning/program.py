"""Ahead-of-time compilation of a jitted step from shapes, and its memory analysis."""

import re
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.planning.abstract import Place, traced_for
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.gpu_compiler import is_described
from stair_jax.planning.workspaces import add_workspaces
from stair_jax.training.optimizers.layers import is_stacked

# Two wordings of XLA's out-of-memory messages.
_USED = re.compile(r"[Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) (\w+)")
_EXCEEDS = re.compile(r"\(([\d.]+[KMGT]?)\) exceeds available \w+ \(([\d.]+[KMGT]?)\)")


@dataclass(frozen=True, eq=False)
class Program:
    """One jitted step with abstract arguments.

    Attributes:
      name: description with sizes, for the reader.
      function: the jitted function that the stage itself calls.
      arguments: static arguments as they are, arrays as `jax.ShapeDtypeStruct`s with shardings.
      place: a mesh, in whose context the function is traced, or a single device without a mesh.
      flops: per call, over all devices, see `models/flops.py`; 0: no matrix products.
      traffic: least memory traffic per call and device in bytes, see `cost.py`; 0: not estimated.
      beside: shapes of arrays that the stage keeps on these devices at the same time without
        passing them to the function.
      offloaded: shapes of arguments that a run keeps in the memory of the host, though the program
        is compiled with them on the devices.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    place: Place
    flops: float
    traffic: float
    beside: Any = ()
    offloaded: Any = ()

    @property
    def num_chips(self) -> int:
        """Number of devices that it runs on."""
        return self.place.size if isinstance(self.place, Mesh) else 1

    @property
    def device(self) -> jax.Device:
        """One of its devices."""
        return self.place.devices.flat[0] if isinstance(self.place, Mesh) else self.place

    @property
    def key(self) -> Hashable:
        """Equal for programs of different stages that compile to the same executable."""
        leaves, treedef = jax.tree.flatten(self.arguments)
        return self.function, treedef, tuple(leaves), self.place

    def lower(self) -> Any:
        """The lowered program (`jax.stages.Lowered`)."""
        with traced_for(self.place):
            lowered = self.function.lower(*self.arguments)
        if is_described(self.device):
            add_workspaces(lowered)
        return lowered


@dataclass(frozen=True)
class Footprint:
    """Bytes per device while a program runs.

    Attributes:
      arguments: of its arguments.
      temporaries: of temporary buffers, at their peak.
      outputs: of results that do not alias a donated argument.
      code: of the executable.
      beside: of other arrays of the stage, see `Program`.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int
    beside: int

    @property
    def total(self) -> int:
        """The sum of all of them, in bytes."""
        return self.arguments + self.temporaries + self.outputs + self.code + self.beside


@dataclass(frozen=True)
class Compiled:
    """The result of a compilation.

    Attributes:
      footprint: memory use; None if the compiler ran out of device memory.
      reason: the compiler's message in that case, shortened; else "".
      seconds: time for tracing and compiling.
    """

    footprint: Footprint | None
    reason: str
    seconds: float


def compile_program(program: Program) -> Compiled:
    """Compiles a program. Running out of device memory is a result, not an error."""
    start = time.monotonic()
    footprint, reason = None, ""
    try:
        stats: Any = program.lower().compile().memory_analysis()
        outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes  # donated buffers once
        kept, copied = _offloaded_bytes(program.offloaded)
        footprint = Footprint(
            stats.argument_size_in_bytes - kept,
            _temporaries(stats, outputs, program.device.platform) + copied,
            outputs,
            stats.generated_code_size_in_bytes,
            _device_bytes(program.beside),
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # there is no class for it
            raise
        reason = shortened(str(error))
    return Compiled(footprint, reason, time.monotonic() - start)


def _temporaries(stats: Any, outputs: int, platform: str) -> int:
    """Peak bytes of temporary buffers.

    XLA for TPUs reports as their size a sum that includes buffers which are never live at the same
    time: programs compile although arguments plus this sum exceed the memory. Its peak statistic
    does not have this flaw.
    """
    if platform != "tpu":
        return stats.temp_size_in_bytes
    arguments = stats.argument_size_in_bytes + stats.host_argument_size_in_bytes
    return max(0, stats.peak_memory_in_bytes - arguments - outputs)


def _offloaded_bytes(arrays: Any) -> tuple[int, int]:
    """Bytes of arrays in host memory, and of what is copied of them to the device at a time.

    That is a layer of those that are stacked over layers, or the largest of the others.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(arrays)
    layer = sum(local_bytes(leaf) // leaf.shape[0] for path, leaf in flat if is_stacked(path))
    others = [local_bytes(leaf) for path, leaf in flat if not is_stacked(path)]
    return local_bytes(arrays), max([layer, *others])


def _device_bytes(arrays: Any) -> int:
    """Bytes per device of arrays, as allocated by the compiler.

    Tiled layouts pad some shapes, so the shapes alone do not tell.
    """
    if not jax.tree.leaves(arrays):
        return 0
    identity = jax.jit(lambda tree: tree, donate_argnums=0)
    stats: Any = identity.lower(arrays).compile().memory_analysis()
    return stats.argument_size_in_bytes


def shortened(message: str) -> str:
    """An out-of-memory message of the compiler, shortened: "... needs 17.9G of 15.75G"."""
    match = _USED.search(message) or _EXCEEDS.search(message)
    if match:
        return f"the compiler needs {match[1]} of {match[2]}"
    return message.splitlines()[0][:120]
