"""A sweep: many runs of one config, each with other values of some fields, that share stages.

Each cell of a sweep is a run in a folder of its own. A stage that is the same in several of them
is done once, in the first, and taken over by the others (`reuse.py`). The cells are run one after
another in one process, and what is finished is not run again, so that the same command goes on
where it stopped, and one with more values adds cells.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError, system_error
from stair_jax.monitoring import duration, say
from stair_jax.parallel.processes import collectives
from stair_jax.run import pipeline
from stair_jax.run.checks import Models
from stair_jax.run.lock import locked
from stair_jax.run.out_of_memory import out_of_memory
from stair_jax.run.override import Override
from stair_jax.run.pipeline import Anew, Others
from stair_jax.run.reuse import taker
from stair_jax.run.run_config import Registry, RunConfig, Sections, read_config
from stair_jax.run.sweep_grid import Cells, overrides_of
from stair_jax.run.sweep_manifest import Manifest, read_manifest, write_manifest
from stair_jax.run.workdir import is_complete, look
from stair_jax.stopping import heed

_PATIENCE = 30.0  # seconds for another process that writes the manifest


@dataclass(frozen=True)
class Cell:
    """A run of a sweep.

    Attributes:
      name: of its folder below that of the sweep.
      config: of the run.
      workdir: of the run.
      models: of its stages, as `pipeline.check` knows them.
    """

    name: str
    config: RunConfig
    workdir: Path
    models: Models = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether each stage has a record of its completion."""
        return all(is_complete(self.workdir, entry.name) for entry in self.config.stages)


def read_cells(
    config: Sections, registry: Registry, overrides: Sequence[Override], cells: Cells, folder: Path
) -> list[Cell]:
    """The runs of a sweep, whose settings are complete and fit together.

    Args:
      config: of a config file.
      registry: the kinds of stages by name.
      overrides: of all cells.
      cells: the values of the varied fields by name; they count more.
      folder: of the sweep.

    Raises:
      UserError: names the cell whose config cannot be, or two that are the same run.
    """
    found: list[Cell] = []
    known: dict[str, str] = {}
    for name, values in cells.items():
        try:
            own = read_config(config, registry, [*overrides, *overrides_of(values)])
        except UserError as error:
            raise UserError(f"cell {name}: {error}") from error
        other = known.setdefault(storage.fingerprint(own.effective()), name)
        if other != name:
            raise UserError(f"the cells {other} and {name} are the same run: leave one of them out")
        found.append(Cell(name, own, folder / name))
    return found


def merged_manifest(folder: Path, new: Manifest) -> Manifest:
    """The cells that a sweep's folder has, and further ones.

    Raises:
      UserError: a cell of the folder has other values than one of the same name.
    """
    before = read_manifest(folder)
    known: Mapping[str, Mapping[str, str]] = {} if before is None else before.cells
    for name, values in new.cells.items():
        if name in known and dict(known[name]) != dict(values):
            raise UserError(
                f"the cell {name} of {folder} has {_shown(known[name])}, and now {_shown(values)}: "
                "use another --workdir"
            )
    return Manifest(new.config, new.overrides, {**known, **new.cells})


def check(cells: Iterable[Cell], redo: Sequence[str] = ()) -> list[Cell]:
    """Checks that all runs fit the user's files and the devices; nothing is written.

    Args:
      cells: of the sweep.
      redo: stages that are to be made anew.

    Returns:
      the cells, with their models.

    Raises:
      UserError: names the cell that does not fit.
    """
    cells, checked = list(cells), []
    _check_clusters(cells)
    for cell in cells:
        try:
            models = pipeline.check(cell.config, cell.workdir, Anew(_own(cell, redo)))
        except UserError as error:
            raise UserError(f"cell {cell.name}: {error}") from error
        checked.append(replace(cell, models=models))
    return checked


def _check_clusters(cells: Sequence[Cell]) -> None:
    """Refuses cells of which one process would have the accelerators, and leave them to workers."""
    with_workers = [cell.name for cell in cells if cell.config.runtime.cluster]
    without = [cell.name for cell in cells if not cell.config.runtime.cluster]
    if with_workers and without:
        raise UserError(
            f"runtime.cluster is set in the cell {with_workers[0]}, and not in {without[0]}: set "
            "it in all cells, or choose cells with --only"
        )


def clear(
    cells: Iterable[Cell], redo: Sequence[str], agree: Callable[[Sequence[str]], bool]
) -> None:
    """Deletes stages that are to be made anew in all cells, once that is agreed to.

    Args:
      cells: of the sweep.
      redo: stages, and what depends on them.
      agree: asked once, with the names of the folders.

    Raises:
      UserError: no cell has a stage of a name, or it is not agreed to.
    """
    cells = list(cells)
    for name in redo:
        if not any(name in _names(cell) for cell in cells):
            raise UserError(f"--redo={name}: no cell of the sweep has such a stage")
    stale = [
        f"{cell.name}/{stage}"
        for cell in cells
        for stage in Anew(_own(cell, redo)).stages(cell.config.stages)
        if (cell.workdir / stage).exists()
    ]
    if not stale or not collectives.is_main():
        return
    if not agree(stale):
        raise UserError("nothing was deleted, and nothing was run")
    for cell in cells:
        if cell.workdir.exists():
            with locked(cell.workdir):
                pipeline.clear(cell.config.stages, cell.workdir, Anew(_own(cell, redo)))


def run(
    cells: Sequence[Cell],
    donors: Sequence[Path] = (),
    finish: Callable[[Cell], None] = lambda cell: None,
) -> dict[str, str]:
    """Runs what is not finished of each cell, one after another.

    A cell that ends with a mistake which the user can correct does not end the sweep, unless
    several processes have to go on in step.

    Args:
      cells: as `check` gives them.
      donors: further working folders that stages may be taken from, such as cells of other grids.
      finish: called with each cell that is done.

    Returns:
      what was wrong, by name of the cell.
    """
    failed: dict[str, str] = {}
    seconds: list[float] = []
    for number, cell in enumerate(cells):
        left = [each for each in cells[number:] if not each.is_finished]
        about = f"; about {duration(len(left) * _mean(seconds))} left" if seconds and left else ""
        say(f"[cell {number + 1} of {len(cells)}] {cell.name}{about}")
        start, was_finished = time.monotonic(), cell.is_finished
        try:
            _run_cell(cell, cells[number + 1 :], [*_others(cell, cells), *donors])
            finish(cell)
        except Exception as error:
            heed()  # what a library made of a signal's exception is no failure of the cell
            reason = _mistake(error)
            if not reason or collectives.num_processes() > 1:
                raise
            failed[cell.name] = reason
            say(f"[cell {number + 1} of {len(cells)}] {cell.name} failed: {reason}")
        if not was_finished:
            seconds.append(time.monotonic() - start)
        gc.collect()  # what a stage had on the devices may be in cycles
    return failed


def _run_cell(cell: Cell, later: Sequence[Cell], donors: Sequence[Path]) -> None:
    def share() -> None:
        """Lets later cells take over the models that this one is about to remove."""
        for each in later:
            with suppress(UserError), locked(each.workdir):
                look(each.config.stages, each.workdir, taker(each.workdir, [cell.workdir]))

    pipeline.run(cell.config, cell.workdir, Anew(), cell.models, Others(donors, share))


def _others(cell: Cell, cells: Sequence[Cell]) -> list[Path]:
    return [each.workdir for each in cells if each.name != cell.name]


def _mistake(error: Exception) -> str:
    """What the user can correct, in a line; empty: it is a fault of ours."""
    text = str(error) if isinstance(error, UserError) else ""
    return " ".join((text or out_of_memory(error) or system_error(error)).split())


def evaluate_something(cells: Iterable[Cell]) -> bool:
    """Whether one of the cells has a stage that a table can be made of."""
    return any(entry.kind == "evaluate" for cell in cells for entry in cell.config.stages)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of a sweep, in the first process of a run, unless it is there.

    Several processes may share a sweep, and add cells at the same time.
    """
    if collectives.is_main() and read_manifest(folder) != manifest:
        with locked(folder, _PATIENCE):
            write_manifest(folder, merged_manifest(folder, manifest))


def _own(cell: Cell, redo: Sequence[str]) -> list[str]:
    """Of the stages that are to be made anew, those that a cell has."""
    return [name for name in redo if name in _names(cell)]


def _names(cell: Cell) -> list[str]:
    return [entry.name for entry in cell.config.stages]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _shown(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {text}" for name, text in values.items()) or "nothing varied"
