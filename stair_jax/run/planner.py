"""Compiles the jitted steps of a config for devices that need not be there, and measures them.

Nothing is run, read or written: of a checkpoint, its `config.json` and tokenizer are looked at.
"""

import dataclasses
import re
from collections.abc import Iterator

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.monitoring import duration, say
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.plan_table import Planned, format_plan
from stair_jax.planning.program import Program, compile_program
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.run.checks import base_of, input_models, plan_context
from stair_jax.run.run_config import RunConfig


def plan(config: RunConfig, topology: str) -> bool:
    """Prints the plan of a config; whether all of it fits.

    Raises:
      UserError: the config cannot be run, on those devices or at all; the topology is unknown.
    """
    devices = get_topology(topology)
    planned = list(compiled(config, devices))
    print(format_plan(devices, planned), flush=True)
    return all(each.fits for each in planned)


def compiled(
    config: RunConfig, topology: Topology, only: re.Pattern[str] = re.compile("")
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


def collect(config: RunConfig, topology: Topology) -> list[tuple[Program, tuple[str, ...]]]:
    """The programs of a config, equal ones once, and the stages that run each."""
    models: dict[str, ModelConfig] = {}
    bases: dict[str, str] = {}
    found: dict[object, tuple[Program, list[str]]] = {}
    for entry in config.stages:
        context = plan_context(entry, config.runtime, models, topology.devices, bases)
        try:
            model = entry.stage.planned_model(input_models(entry, models))
            programs = entry.stage.programs(context)
        except UserError as error:
            raise UserError(f"stage {entry.name}: {error}") from error
        if model is not None:
            models[entry.name] = model
        bases |= base_of(entry, bases)
        for program in programs:
            _add(found, program, entry.name)
    return [(program, tuple(names)) for program, names in found.values()]


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
