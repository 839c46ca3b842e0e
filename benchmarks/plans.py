"""Plans of configs for topologies that are elsewhere: JSON lines, and a table for docs/plans.md.

    python -m benchmarks.plans --config=configs/llama8b_stair.py --topology=v5p:2x2x1 \
        --topology=v5e:4x4 [--only='DPO step'] [--markdown=table.md] [--set=runtime.slots=64]

Takes minutes a program. A line: {config, topology, program, stages, chips, argument, temporary,
output, code, beside, total, memory (bytes a chip), flops, flops_seconds, bytes_seconds (bounds from
below), compile_seconds, fits, reason}.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stair_jax import launch, planner
from stair_jax.planning.chips import GIB
from stair_jax.planning.report import Planned
from stair_jax.planning.topology import Topology, get_topology

_HEADER = ("config", "topology", "program", "GiB a chip", "TFLOP", "bounds", "compiled in", "fits")


def main(arguments: Sequence[str]) -> None:
    """Plans each config for each topology."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--topology", action="append", required=True)
    parser.add_argument("--only", default="", help="programs whose names hold this pattern")
    parser.add_argument("--set", action="append", default=[], help="an override, FIELD=VALUE")
    parser.add_argument("--markdown", type=Path, help="where to write a table")
    options = parser.parse_args(arguments)
    lines = []
    for config in options.config:
        overrides = [f"--config.{override}" for override in options.set]
        parsed = launch.parse_config(["plans", f"--config={config}", *overrides])
        for name in options.topology:
            topology = get_topology(name)
            for planned in planner.compiled(parsed, topology, re.compile(options.only)):
                lines.append(_line(config, topology, planned))
                print(json.dumps(lines[-1]), flush=True)
    if options.markdown:
        options.markdown.write_text(_markdown(lines))


def _line(config: str, topology: Topology, planned: Planned) -> dict[str, Any]:
    program, compiled = planned.program, planned.compiled
    return {
        "config": Path(config).stem,
        "topology": topology.name,
        "program": program.name,
        "stages": planned.stages,
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
        line["config"],
        line["topology"],
        line["program"],
        size,
        f"{line['flops'] / 1e12:.4g}",
        ", ".join("-" if bound is None else f"{bound:.3g} s" for bound in bounds),
        f"{line['compile_seconds']:.0f} s",
        "yes" if line["fits"] else "**no**",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
