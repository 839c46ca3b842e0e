"""Compiles the jitted steps of a config for devices that need not be there, and measures them.

Nothing is run, read or written: of a checkpoint, its `config.json` and tokenizer are looked at.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict, FrozenConfigDict

from stair_jax.errors import UserError
from stair_jax.graph import Stage, make_graph
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import duration, say
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.program import Program, compile_program
from stair_jax.planning.report import Planned, format_plan
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.stages.context import PlanContext


def plan(config: ConfigDict, topology: str) -> bool:
    """Prints the plan of a config; whether all of it fits.

    Raises:
      UserError: the config cannot be run, on those devices or at all; the topology is unknown.
    """
    devices = get_topology(topology)
    planned = list(compiled(config, devices))
    print(format_plan(devices, planned), flush=True)
    return all(each.fits for each in planned)


def compiled(
    config: ConfigDict, topology: Topology, only: re.Pattern[str] = re.compile("")
) -> Iterator[Planned]:
    """The programs of a config, one after the other as they are compiled.

    Args:
      config: of the run.
      topology: the devices.
      only: matches somewhere in the names of the programs to compile.

    Raises:
      UserError: see `plan`.
    """
    programs = [pair for pair in collect(config, topology) if only.search(pair[0].name)]
    if not programs:
        raise UserError("the config has no stage with steps to plan: no model runs in it")
    for number, (program, stages) in enumerate(programs, start=1):
        say(f"[{number} of {len(programs)}] compiling {program.name} for {topology.name}")
        result = compile_program(program)
        outcome = result.reason or "compiled"
        say(f"[{number} of {len(programs)}] {outcome} in {duration(result.seconds)}")
        yield Planned(program, stages, topology.chip, result)


def collect(config: ConfigDict, topology: Topology) -> list[tuple[Program, tuple[str, ...]]]:
    """The programs of a config, equal ones once, and the stages that run each."""
    runtime = FrozenConfigDict(config.get("runtime") or {})
    models: dict[str, ModelConfig] = {}
    found: dict[object, tuple[Program, list[str]]] = {}
    for stage in make_graph(config):
        context = PlanContext(
            name=stage.name,
            settings=FrozenConfigDict(dict(stage.settings)),
            runtime=runtime,
            devices=topology.devices,
            models=_inputs(stage, models),
        )
        try:
            model = _model(stage, context.models)
            programs = _programs(stage, context)
        except UserError as error:
            raise UserError(f"stage {stage.name}: {error}") from error
        if model is not None:
            models[stage.name] = model
        for program in programs:
            _add(found, program, stage.name)
    return [(program, tuple(names)) for program, names in found.values()]


def _inputs(stage: Stage, models: Mapping[str, ModelConfig]) -> dict[str, tuple[ModelConfig, ...]]:
    """For each field of the stage's inputs, the models of the stages that it names."""
    named = {
        field: (names,) if isinstance(names, str) else names
        for field, names in stage.inputs.items()
    }
    return {
        field: tuple(models[name] for name in names if name in models)
        for field, names in named.items()
    }


def _model(stage: Stage, inputs: Mapping[str, Sequence[ModelConfig]]) -> ModelConfig | None:
    """The model that a stage hands on: its own, or the one that it was made of."""
    if own := getattr(stage.module, "planned_model", None):
        return own(stage.settings)
    return next(iter(inputs.get("model", ())), None)


def _programs(stage: Stage, context: PlanContext) -> list[Program]:
    programs = getattr(stage.module, "programs", None)
    return programs(context) if programs else []


def _add(found: dict[object, tuple[Program, list[str]]], program: Program, name: str) -> None:
    """Adds a program, or the name of one more stage that runs it."""
    if program.key not in found:
        found[program.key] = (program, [name])
        return
    same, names = found[program.key]
    beside = max(same.beside, program.beside, key=local_bytes)
    found[program.key] = (dataclasses.replace(same, beside=beside), names)
    if name not in names:
        names.append(name)
