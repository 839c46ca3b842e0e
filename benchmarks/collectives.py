"""What devices exchange in a training step, by the compiled program: weak scaling without devices.

    python -m benchmarks.collectives [--part dpo] [--devices 1,2,4,8,16] [--axis fsdp]
    python -m benchmarks.collectives --topologies v5p:2x2x1,v5p:2x2x2,v5p:2x2x4

Each number of simulated devices gets as many rows of its own, so that in the ideal case the bytes
that one of them sends and receives stay the same. With --topologies the step is compiled for TPU
slices by their own compiler. A line has the bytes of the results of each kind of collective that a
device takes part in during one step, those inside of loops as often as the loop runs, and their
number; where N devices take part, a reduce-scatter's operand is N times its result.
"""

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:to_apply|calls|branch_computations|true_computation|false_computation)=")


class Traffic(NamedTuple):
    """Of one kind of collective, in one step."""

    number: int
    bytes: int


def main() -> None:
    """Compiles the step for each number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="dpo", choices=("sft", "dpo"))
    parser.add_argument("--devices", default="1,2,4,8", help="comma-separated")
    parser.add_argument("--topologies", default="", help="in place of --devices")
    parser.add_argument("--axis", default="fsdp", choices=("data", "fsdp", "tensor"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2, help="of each device")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    parser.add_argument("--chunks", type=int, default=4, help="logps_chunks")
    flags = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    counts = [int(number) for number in flags.devices.split(",")]
    jax.config.update("jax_num_cpu_devices", max(counts))
    from benchmarks.common import Lines
    from stair_jax.planning.topology import get_topology

    lines = Lines(vars(flags))
    if flags.topologies:
        places = [get_topology(name).devices for name in flags.topologies.split(",")]
    else:
        places = [jax.devices()[:count] for count in counts]
    for devices in places:
        count = len(devices)
        found = measure_collectives(_compiled(flags, devices))
        values = {
            f"{kind.replace('-', '_')}_{name}": value
            for kind, traffic in found.items()
            for name, value in traffic._asdict().items()
        }
        total = sum(traffic.bytes for traffic in found.values())
        lines("collectives", axis=flags.axis, devices_used=count, bytes_a_device=total, **values)


def _compiled(flags: argparse.Namespace, devices: Sequence[Any]) -> str:
    """The text of the compiled step of a small model over these devices."""
    import dataclasses

    import jax
    import numpy as np

    from benchmarks.train import make_batch
    from stair_jax.models.config import ModelConfig
    from stair_jax.models.huggingface.known_configs import KNOWN
    from stair_jax.models.layout import fit_to_mesh
    from stair_jax.models.transformer import logical_axes
    from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
    from stair_jax.parallel.rules import replicated
    from stair_jax.planning.abstract import abstract_params
    from stair_jax.planning.training import abstract_batch
    from stair_jax.training.objectives import DpoObjective, SftObjective
    from stair_jax.training.optimizer import make_optimizer
    from stair_jax.training.settings import TrainingSettings
    from stair_jax.training.step import abstract_state, make_train_step

    count = len(devices)
    mesh = make_mesh(MeshShape(**{flags.axis: count}), devices)
    config = ModelConfig.from_huggingface(KNOWN["meta-llama/Llama-3.2-1B-Instruct"].config)
    config = dataclasses.replace(
        config, num_hidden_layers=flags.layers, dtype="bfloat16", remat="full", attention="xla"
    )
    config = fit_to_mesh(config, mesh)
    own = argparse.Namespace(**{**vars(flags), "passes": 1})
    own.rows *= count if flags.axis != "tensor" else 1
    batch = make_batch(own, config, pairs=flags.part == "dpo")
    objective = (
        SftObjective(config, flags.chunks)
        if flags.part == "sft"
        else DpoObjective(config, 0.1, 0.2, flags.chunks)
    )
    tx = make_optimizer(TrainingSettings(), 1).tx
    state = abstract_state(abstract_params(config, mesh), logical_axes(config), tx, mesh)
    rate = jax.ShapeDtypeStruct((), np.float32, sharding=replicated(mesh))
    with use_mesh(mesh):
        step: Any = make_train_step(objective, tx, state)
        return step.lower(state, abstract_batch(batch, mesh), rate).compile().as_text()


def measure_collectives(text: str) -> dict[str, Traffic]:
    """The collectives of a compiled program in HLO's text form, by kind.

    Loops run as often as the compiler knows, or once where it does not.
    """
    computations = dict(_computations(text))
    entry = next(name for name in computations if f"ENTRY %{name} " in text)
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    _add(entry, 1, computations, totals)
    return {kind: Traffic(*totals[kind]) for kind in KINDS if totals[kind][0]}


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name = ""
    body: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name, body = match[1], []
        elif line.startswith("}") and name:
            yield name, body
        else:
            body.append(line)


def _add(
    name: str, times: int, computations: Mapping[str, list[str]], totals: dict[str, list[int]]
) -> None:
    for line in computations[name]:
        if match := _COLLECTIVE.search(line):
            arrays, kind, is_start = _ARRAY.findall(match[1]), match[2], match[3]
            if is_start and kind != "all-reduce":
                arrays = arrays[len(arrays) // 2 :]  # the first half are the operands
            totals[kind][0] += times
            totals[kind][1] += times * sum(_size(*array) for array in arrays)
        elif match := _WHILE.search(line):
            trips = _TRIPS.search(line)
            _add(match[1], times * int(trips[1] if trips else 1), computations, totals)
        elif _CALLED.search(line):
            for called in re.findall(r"%([\w.\-]+)", line[_CALLED.search(line).end() :]):  # type: ignore
                if called in computations:
                    _add(called, times, computations, totals)


def _size(dtype: str, sizes: str) -> int:
    count = 1
    for size in filter(None, sizes.split(",")):
        count *= int(size)
    return count * _BYTES.get(dtype, 4)


if __name__ == "__main__":
    main()
