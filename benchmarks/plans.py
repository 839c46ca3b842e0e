"""Plans of configs for topologies that are elsewhere: JSON lines, and a table for docs/plans.md.

    python -m benchmarks.plans --config=configs/llama8b_stair.py --config=configs/llama8b_sft.py \
        --topology=v5p:2x2x1 --topology=v5e:4x4 \
        [--only='DPO step'] [--markdown=table.md] [--set=runtime.slots=64]

Takes a minute or so a program. A line: {configs, topology, program, chips, argument, temporary,
output, code, beside, total, memory (bytes a chip), flops, flops_seconds, bytes_seconds (bounds from
below), compile_seconds, fits, reason}.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import take_overrides
from stair_jax.monitoring import say
from stair_jax.parallel.chips import GIB
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.plan_table import Planned
from stair_jax.planning.program import Program, compile_program
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.run.planner import collect
from stair_jax.run.run_config import RunConfig, read_config
from stair_jax.stages import STAGES

_HEADER = (
    "topology",
    "program",
    "GiB a chip",
    "TFLOP",
    "bounds: FLOPs, bytes",
    "compiled in",
    "fits",
    "configs",
)


def main(arguments: Sequence[str]) -> None:
    """Plans the configs for each topology; what several of them run is compiled once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--topology", action="append", required=True)
    parser.add_argument("--only", default="", help="programs whose names hold this pattern")
    parser.add_argument("--set", action="append", default=[], help="an override, FIELD=VALUE")
    parser.add_argument("--markdown", type=Path, help="where to write a table")
    options = parser.parse_args(arguments)
    overrides, _ = take_overrides([f"--config.{override}" for override in options.set])
    configs = {
        Path(path).stem: read_config(load_config(path), STAGES, overrides)
        for path in options.config
    }
    lines = []
    for topology in map(get_topology, options.topology):
        for program, names in _programs(configs, topology):
            if not re.search(options.only, program.name):
                continue
            say(f"compiling {program.name} of {', '.join(names)} for {topology.name}")
            planned = Planned(program, names, topology.chip, compile_program(program))
            lines.append(_line(topology, planned))
            print(json.dumps(lines[-1]), flush=True)
    if options.markdown:
        options.markdown.write_text(_markdown(lines))


def _programs(
    configs: Mapping[str, RunConfig], topology: Topology
) -> list[tuple[Program, tuple[str, ...]]]:
    """The programs of all configs, equal ones once, and the configs that run each."""
    found: dict[Hashable, tuple[Program, list[str]]] = {}
    for name, config in configs.items():
        for program, _ in collect(config, topology):
            first, names = found.setdefault(program.key, (program, []))
            beside = max(first.beside, program.beside, key=local_bytes)
            found[program.key] = (dataclasses.replace(first, beside=beside), [*names, name])
    return [(program, tuple(names)) for program, names in found.values()]


def _line(topology: Topology, planned: Planned) -> dict[str, Any]:
    program, compiled = planned.program, planned.compiled
    return {
        "configs": planned.stages,
        "topology": topology.name,
        "program": program.name,
        "chips": program.num_chips,
        **(vars(compiled.footprint) if compiled.footprint else {}),
        "total": compiled.footprint.total if compiled.footprint else None,
        "memory": planned.chip.memory,
        "flops": program.flops,
        "flops_seconds": planned.flops_seconds,
        "bytes_seconds": planned.bytes_seconds,
        "compile_seconds": round(compiled.seconds, 1),
        "fits": planned.fits,
        "reason": compiled.reason,
    }


def _markdown(lines: Sequence[dict[str, Any]]) -> str:
    rows = [_HEADER, ("---",) * len(_HEADER), *map(_row, lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    if line["total"] is None:
        size = line["reason"]
    else:
        parts = line["arguments"], line["total"] - line["arguments"] - line["beside"]
        beside = f" + {line['beside'] / GIB:.1f} beside" if line["beside"] else ""
        memory = f"{line['total'] / GIB:.1f} of {line['memory'] / GIB:.1f}"
        size = f"{parts[0] / GIB:.1f} + {parts[1] / GIB:.1f}{beside} = {memory}"
    bounds = [line["flops_seconds"], line["bytes_seconds"]]
    return (
        line["topology"],
        line["program"],
        size,
        f"{line['flops'] / 1e12:,.0f}" if line["flops"] else "-",
        ", ".join("-" if bound is None else f"{bound:.3g} s" for bound in bounds),
        f"{line['compile_seconds']:.0f} s",
        "yes" if line["fits"] else "**no**",
        _common(line["configs"]),
    )


def _common(configs: Sequence[str]) -> str:
    """Names of configs of one model, its own said once: `llama8b_`: iter1, iter2."""
    prefix = configs[0].rpartition("_")[0] + "_"
    return f"`{prefix}`: " + ", ".join(name.removeprefix(prefix) for name in configs)


if __name__ == "__main__":
    main(sys.argv[1:])
