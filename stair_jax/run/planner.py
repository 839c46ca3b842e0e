"""Compiles the jitted steps of a config for devices that need not be there, and measures them.

Nothing is run, read or written: of a checkpoint, its `config.json` and tokenizer are looked at.
"""

import dataclasses
import re
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.monitoring import duration, say
from stair_jax.planning.abstract import traced_for
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.plan_table import Planned, format_failures, format_plan, plan_json
from stair_jax.planning.program import Compiled, Program, compile_program
from stair_jax.planning.rates import Amounts
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.run.changes import changes, changes_json, format_changes
from stair_jax.run.checks import Earlier
from stair_jax.run.context import PlanContext
from stair_jax.run.fit import Fit, Measure, Trial, fit
from stair_jax.run.recipe import format_recipe, recipe_json, recipe_needs
from stair_jax.run.run_config import RunConfig
from stair_jax.run.stage_list import StageEntry
from stair_jax.storage import write_json


def plan(
    config: RunConfig,
    topology: str,
    is_fitted: bool = False,
    amounts: Amounts | None = None,
    file: Path | None = None,
) -> bool:
    """Prints the plan of a config; whether all of it fits.

    Args:
      config: of the run.
      topology: name of the devices.
      is_fitted: whether the config is changed until it fits; the plan is then that of the changed
        one, and tells the changes.
      amounts: what the config does not say of the work; None: as assumed.
      file: where all of it is written as JSON; None: nowhere.

    Raises:
      UserError: the config cannot be run, on those devices or at all; the topology is unknown.
    """
    devices = get_topology(topology)
    measure = Measuring(devices)
    result = Fit(config)
    with traced_for(devices.devices[0]):
        if is_fitted:
            result = fit(config, Trial(measure, devices.devices))
        planned = list(compiled(result.config, devices, measure=measure, skipped=result.obstacles))
        needs = recipe_needs(result.config, devices, amounts or Amounts(), result.obstacles)
    found = changes(config, result)
    fitting = format_changes(found, result) if is_fitted else ""
    parts = format_plan(devices, planned), format_recipe(needs), fitting, format_failures(planned)
    print("\n\n".join(filter(None, parts)), flush=True)
    fits = all(each.fits for each in planned) and not result.obstacles
    if file is not None:
        write_json(
            file,
            {
                **plan_json(devices, planned),
                "fits": fits,
                "recipe": recipe_json(needs),
                "changes": changes_json(found),
                "obstacles": dict(result.obstacles),
            },
        )
    return fits


def compiled(
    config: RunConfig,
    topology: Topology,
    only: re.Pattern[str] = re.compile(""),
    measure: Measure | None = None,
    skipped: Collection[str] = (),
) -> Iterator[Planned]:
    """The programs of a config, one after the other as they are compiled.

    Args:
      config: of the run.
      topology: the devices.
      only: matches somewhere in the names of the programs to compile.
      measure: compiles them; None: a new `Measuring`.
      skipped: stages that may be left out, where their steps cannot even be planned.

    Raises:
      UserError: the config cannot be run, on those devices or at all.
    """
    programs = [pair for pair in collect(config, topology, skipped) if only.search(pair[0].name)]
    if not programs:
        raise UserError("the config has no stage with steps to plan: no model runs in it")
    measure = measure or Measuring(topology)
    for number, (program, stages) in enumerate(programs, start=1):
        yield measure(program, stages, f"[{number} of {len(programs)}] ")


class Measuring:
    """Compiles programs for a topology, equal ones once."""

    def __init__(self, topology: Topology):
        """Nothing is compiled yet."""
        self._topology = topology
        self._known: dict[Hashable, Compiled] = {}

    def __call__(self, program: Program, stages: tuple[str, ...], title: str = "") -> Planned:
        """A program of some stages, compiled; `title` begins what is said of it."""
        key = program.key, local_bytes(program.beside)
        if key not in self._known:
            say(f"{title}compiling {program.name} for {self._topology.name}")
            result = self._known[key] = compile_program(program)
            say(f"{title}{result.reason or 'compiled'} in {duration(result.seconds)}")
        return Planned(program, stages, self._topology.chip, self._known[key])


def collect(
    config: RunConfig, topology: Topology, skipped: Collection[str] = ()
) -> list[tuple[Program, tuple[str, ...]]]:
    """The programs of a config, equal ones once, and the stages that run each.

    Those of `skipped` stages are left out where they cannot be planned.
    """
    earlier = Earlier()
    found: dict[object, tuple[Program, list[str]]] = {}
    for entry in config.stages:
        model = earlier.planned_model(entry)
        try:
            context = earlier.context(entry, config.runtime, topology.devices)
            with traced_for(topology.devices[0]):
                programs = _programs(entry, context, skipped)
        except UserError as error:
            raise UserError(f"stage {entry.name}: {error}") from error
        earlier.add(entry, model)
        for program in programs:
            _add(found, program, entry.name)
    return [(program, tuple(names)) for program, names in found.values()]


def _programs(entry: StageEntry, context: PlanContext, skipped: Collection[str]) -> list[Program]:
    try:
        return entry.stage.programs(context)
    except UserError:
        if entry.name in skipped:
            return []
        raise


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
