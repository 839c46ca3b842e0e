"""A jitted step with the shapes of its arguments: compiled without running it, and measured."""

import re
import time
from collections.abc import Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from stair_jax.parallel.mesh import use_mesh
from stair_jax.planning.abstract import Place

_USED = re.compile(r"[Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) (\w+)")
_EXCEEDS = re.compile(r"\(([\d.]+[KMGT]?)\) exceeds available \w+ \(([\d.]+[KMGT]?)\)")


@dataclass(frozen=True, eq=False)
class Program:
    """One jitted step.

    Attributes:
      name: what it does, and on how much, for the reader.
      function: jitted.
      arguments: static ones as they are, arrays as `jax.ShapeDtypeStruct` with their shardings.
      place: a mesh, within which the function is traced, or one device, then outside of any.
      flops: of all devices together, see `models/flops.py`; 0: no matrix product.
      traffic: bytes that each device moves between memory and chip at least, see `cost.py`; 0: not
        counted.
      beside: shapes of what the stage keeps on these devices meanwhile, and is no argument.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    place: Place
    flops: float
    traffic: float
    beside: Any = ()

    @property
    def num_chips(self) -> int:
        """Devices that it runs on."""
        return self.place.size if isinstance(self.place, Mesh) else 1

    @property
    def platform(self) -> str:
        """Kind of its devices."""
        device = self.place.devices.flat[0] if isinstance(self.place, Mesh) else self.place
        return device.platform

    @property
    def key(self) -> Hashable:
        """Equal for programs that compile to the same, in whatever stage."""
        leaves, treedef = jax.tree.flatten(self.arguments)
        return self.function, treedef, tuple(leaves), self.place

    def lower(self) -> Any:
        """The program as the compiler gets it."""
        within = use_mesh(self.place) if isinstance(self.place, Mesh) else nullcontext()
        with within:
            return self.function.lower(*self.arguments)


@dataclass(frozen=True)
class Footprint:
    """Bytes on each device while a program runs.

    Attributes:
      arguments: its arguments.
      temporaries: what it needs in between.
      outputs: results that are not written over an argument.
      code: the program itself.
      beside: see `Program`.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int
    beside: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.arguments + self.temporaries + self.outputs + self.code + self.beside


@dataclass(frozen=True)
class Compiled:
    """What became of a program.

    Attributes:
      footprint: None where the compiler gave up.
      reason: why it gave up, in short.
      seconds: of tracing and compiling.
    """

    footprint: Footprint | None
    reason: str
    seconds: float


def compile_program(program: Program) -> Compiled:
    """Compiles a program; a lack of memory that the compiler finds is a result, not an error."""
    start = time.monotonic()
    footprint, reason = None, ""
    try:
        stats: Any = program.lower().compile().memory_analysis()
        outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
        footprint = Footprint(
            stats.argument_size_in_bytes,
            _temporaries(stats, outputs, program.platform),
            outputs,
            stats.generated_code_size_in_bytes,
            _device_bytes(program.beside),
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = shortened(str(error))
    return Compiled(footprint, reason, time.monotonic() - start)


def _temporaries(stats: Any, outputs: int, platform: str) -> int:
    """Bytes of temporary buffers at the worst moment.

    The size that the compiler for TPUs states for them adds up buffers that take turns: programs
    pass its own check though arguments and that size exceed the memory. Its peak holds them once.
    """
    if platform != "tpu":
        return stats.temp_size_in_bytes
    return max(0, stats.peak_memory_in_bytes - stats.argument_size_in_bytes - outputs)


def _device_bytes(arrays: Any) -> int:
    """Bytes that arrays take on each device: some are padded there, so the compiler is asked."""
    if not jax.tree.leaves(arrays):
        return 0
    identity = jax.jit(lambda tree: tree, donate_argnums=0)
    stats: Any = identity.lower(arrays).compile().memory_analysis()
    return stats.argument_size_in_bytes


def shortened(message: str) -> str:
    """What the compiler says of a lack of memory, in a few words: "17.9G of 15.75G"."""
    match = _USED.search(message) or _EXCEEDS.search(message)
    if match:
        return f"the compiler needs {match[1]} of {match[2]}"
    return message.splitlines()[0][:120]
