"""The printed table of a plan: memory per chip, and roofline bounds on the time of each program."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stair_jax.parallel.chips import GIB, Chip
from stair_jax.parallel.gpus import fraction_advice
from stair_jax.planning.program import Compiled, Program
from stair_jax.planning.topology import Topology

_COLUMNS = (
    "program",
    "chips",
    "arguments",
    "temporary",
    "output",
    "beside",
    "total",
    "of chip",
    "TFLOP",
    "FLOPs bound",
    "bytes bound",
    "",
    "stages",
)
_TO_THE_LEFT = ("program", "", "stages")
_NOTES = """\
arguments, temporary, output, beside, total: GiB a chip. An output that is written over an argument
is part of it; temporary holds the program too; beside is what the stage keeps there meanwhile.
TFLOP: matrix products of a call, all chips together, without what remat computes again. The bounds
on its time come from FLOPs at the chips' peak, and from the traffic of weights, optimizer state and
KV cache at their bandwidth."""


@dataclass(frozen=True)
class Planned:
    """A compiled program of a plan.

    Attributes:
      program: the program.
      stages: names of the stages that run it.
      chip: the hardware that it was compiled for.
      compiled: the result of the compilation.
    """

    program: Program
    stages: tuple[str, ...]
    chip: Chip
    compiled: Compiled

    @property
    def fits(self) -> bool:
        """Whether the program fits into the memory of a chip."""
        footprint = self.compiled.footprint
        return footprint is not None and footprint.total <= self.chip.memory

    @property
    def flops_seconds(self) -> float | None:
        """Lower bound on the seconds per call by peak FLOP/s; None if not known."""
        if self.chip.flops is None or not self.program.flops:
            return None
        return self.program.flops / (self.program.num_chips * self.chip.flops)

    @property
    def bytes_seconds(self) -> float | None:
        """Lower bound on the seconds per call by memory bandwidth; None if not known."""
        if self.chip.bandwidth is None or not self.program.traffic:
            return None
        return self.program.traffic / self.chip.bandwidth


def format_plan(topology: Topology, plan: Sequence[Planned]) -> str:
    """The table as text."""
    chip = topology.chip
    rows = [_COLUMNS, *(_row(planned) for planned in plan)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{topology.name}: {len(topology.devices)} x {chip.name} of {_gib(chip.memory)} GiB"]
    if topology.note:
        lines.append(topology.note)
    lines += ["", *(_line(row, widths) for row in rows), "", _NOTES]
    return "\n".join(lines)


def format_failures(plan: Sequence[Planned]) -> str:
    """A line for each program that does not fit."""
    return "\n".join(_failure(planned) for planned in plan if not planned.fits)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if column in _TO_THE_LEFT else cell.rjust(width)
        for column, cell, width in zip(_COLUMNS, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _row(planned: Planned) -> tuple[str, ...]:
    program = planned.program
    return (
        program.name,
        str(program.num_chips),
        *_sizes(planned),
        f"{program.flops / 1e12:.4g}" if program.flops else "-",
        _seconds(planned.flops_seconds),
        _seconds(planned.bytes_seconds),
        "fits" if planned.fits else "DOES NOT FIT",
        ", ".join(planned.stages),
    )


def _sizes(planned: Planned) -> tuple[str, ...]:
    footprint = planned.compiled.footprint
    if footprint is None:
        return ("-",) * 6
    return (
        _gib(footprint.arguments),
        _gib(footprint.temporaries + footprint.code),
        _gib(footprint.outputs),
        _gib(footprint.beside),
        _gib(footprint.total),
        f"{footprint.total / planned.chip.memory:.1%}",
    )


def _gib(size: float) -> str:
    gib = size / GIB
    return f"{gib:.2f}" if gib >= 0.1 or not size else f"{gib:.1g}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def plan_json(topology: Topology, plan: Sequence[Planned]) -> dict[str, Any]:
    """The same in JSON's types: bytes, FLOPs and seconds."""
    chip = topology.chip
    return {
        "topology": topology.name,
        "devices": len(topology.devices),
        "chip": {"name": chip.name, "memory": chip.memory if math.isfinite(chip.memory) else None},
        "programs": [_program_json(planned) for planned in plan],
    }


def _program_json(planned: Planned) -> dict[str, Any]:
    program, footprint = planned.program, planned.compiled.footprint
    return {
        "program": program.name,
        "stages": list(planned.stages),
        "chips": program.num_chips,
        "memory": footprint and {**asdict(footprint), "total": footprint.total},
        "fits": planned.fits,
        "reason": "" if planned.fits else overflow(planned),
        "flops": program.flops,
        "flops_seconds": planned.flops_seconds,
        "bytes_seconds": planned.bytes_seconds,
    }


def overflow(planned: Planned) -> str:
    """How much a program that does not fit takes, in words."""
    footprint, memory = planned.compiled.footprint, _gib(planned.chip.memory)
    if footprint is None:
        return planned.compiled.reason
    whole = planned.chip.whole
    advice = fraction_advice(footprint.total, whole) if whole else ""
    more = f"; it fits with {advice}" if advice else ""
    return f"{_gib(footprint.total)} of {memory} GiB{more}"


def _failure(planned: Planned) -> str:
    stages = ", ".join(planned.stages)
    return f"does not fit: {planned.program.name} ({stages}): {overflow(planned)}"
