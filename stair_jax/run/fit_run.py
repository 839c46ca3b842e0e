"""A config fitted to the devices of a run, and to what its working folder holds already."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.planning.topology import LOCAL, get_topology
from stair_jax.run.changes import changes
from stair_jax.run.checks import (
    Earlier,
    Models,
    check_devices,
    check_environment,
    finished_model,
)
from stair_jax.run.fit import Fit, Known, Trial, fit
from stair_jax.run.planner import Measuring
from stair_jax.run.run_config import RunConfig
from stair_jax.run.runtime import Runtime
from stair_jax.run.savings import Harm, Saving, apply
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_records import COMPLETE_FILE, STARTED_FILE, changed_settings, read_record


def check_and_fit(
    config: RunConfig, workdir: Path, redone: Collection[str] = ()
) -> tuple[RunConfig, Models]:
    """As `pipeline.check`, but changes what does not fit the devices; says each change.

    A stage that was started keeps what decides its results, as an earlier fit had it, and may get
    changes of cost alone; one that is finished stays as it is. So the same command goes on where it
    stopped.

    Args:
      config: of the run.
      workdir: of the run; may not be there yet.
      redone: finished stages that are made anew.

    Returns:
      the changed config, and the models of its stages.

    Raises:
      UserError: something that the run needs is missing, or a stage fits by no change.
    """
    check_environment(config, workdir, redone)
    measure = Measuring(get_topology(LOCAL))
    changed, known = as_started(config, workdir, redone)
    result = fit(changed, Trial(measure), known)
    if result.obstacles:
        name, reason = next(iter(result.obstacles.items()))
        raise UserError(f"stage {name}: no change makes it fit these devices: {reason}")
    _say(changed, result)
    return result.config, check_devices(result.config, workdir, redone)


def _say(config: RunConfig, result: Fit) -> None:
    found = changes(config, result)
    for change in found:
        say(f"fit: {change.override} (was {change.before}): {change.harm.text}")
    if not found:
        say("fit: nothing had to be changed")


def as_started(
    config: RunConfig, workdir: Path, redone: Collection[str] = ()
) -> tuple[RunConfig, dict[str, Known]]:
    """The config with what stages of the folder were started with, and what is known of these.

    Only fields that a fit may have set are taken over; `run` refuses all other differences.
    """
    known: dict[str, Known] = {}
    earlier = Earlier()
    entries: list[StageEntry] = []
    for entry in config.stages:
        path = None if entry.name in redone else _record_file(workdir / entry.name)
        if path is not None:
            savings = entry.stage.savings(earlier.context(entry, config.runtime))
            entry = _with_record(entry, path, savings)
        if path is not None and path.name == COMPLETE_FILE:
            model = finished_model(entry, workdir, earlier.inputs(entry))
            known[entry.name] = Known(None, model)
        else:
            model = earlier.planned_model(entry)
            known |= {entry.name: Known(Harm.COST, model)} if path is not None else {}
        earlier.add(entry, model)
        entries.append(entry)
    return dataclasses.replace(config, stages=tuple(entries)), known


def _record_file(folder: Path) -> Path | None:
    """The record of a stage that is finished, or else of one that was started."""
    files = (folder / name for name in (COMPLETE_FILE, STARTED_FILE))
    return next((file for file in files if file.is_file()), None)


def _with_record(entry: StageEntry, path: Path, savings: Sequence[Saving]) -> StageEntry:
    """A stage with those values of its record that a fit may have set."""
    possible = [
        (name, value)
        for saving in savings
        if saving.harm > Harm.COST
        for name, value in saving.values.items()
    ]
    record = read_record(path)
    if record["kind"] != entry.kind:
        return entry  # which the run refuses
    kept = {
        name: before
        for name, (before, _) in changed_settings(entry, record).items()
        if (name, before) in possible
    }
    for name, value in kept.items():
        say(f"fit: config.{entry.name}.{name} stays {value}, as {path.parent} has it")
    return apply(entry, Runtime(), kept)[0]
