"""Finished stages of other runs, taken over where they are the same: nothing is run again.

A stage is taken over if its record in the other working folder says just what this run's would:
kind, name, version, seed, settings, inputs and the content of the user's files. Its files are
hard-linked, or copied where the file system has no links; the record stays valid, and its files are
checked as those of any finished stage. Files are replaced or deleted, never changed in place, so
that neither run changes the other's; a stage that goes on is given bytes of its own before
(`own_files`). A stage that was lengthened, or whose model was removed, is not taken over.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_records import (
    COMPLETE_FILE,
    REMOVED,
    STARTED_FILE,
    Record,
    check_sizes,
    difference,
    read_record,
)
from stair_jax.run.stage_times import TIMES_FILE
from stair_jax.run.sweep_manifest import read_manifest
from stair_jax.run.workdir import CONFIG_FILE, HISTORY, Fill


def donor_folders(names: Sequence[str], workdir: Path) -> list[Path]:
    """The working folders that stages may be taken from.

    Args:
      names: folders of runs, or of sweeps, which stand for all of their cells.
      workdir: that takes; it is left out of a sweep.

    Raises:
      UserError: a name is no folder of a run, or is `workdir` itself.
    """
    found: list[Path] = []
    for name in names:
        folder = Path(name).expanduser()
        manifest = read_manifest(folder)
        if manifest is None and not (folder / CONFIG_FILE).is_file():
            raise UserError(f"--reuse={name}: there is no run in {folder}: name its --workdir")
        if folder.resolve() == workdir.resolve():
            raise UserError(f"--reuse={name} is the --workdir itself: name that of another run")
        found += [folder] if manifest is None else [folder / cell for cell in manifest.cells]
    return [folder for folder in found if folder.resolve() != workdir.resolve()]


def taker(workdir: Path, donors: Sequence[Path], but: Collection[str] = ()) -> Fill:
    """A function for `workdir.look` that fills the folder of a stage from the first that has it.

    Args:
      workdir: of the run.
      donors: working folders of other runs.
      but: stages that are to be made anew.
    """

    def take(entry: StageEntry, inputs: Mapping[str, str], sources: Mapping[str, str]) -> None:
        if entry.name in but or not _is_open(entry, inputs, sources, workdir / entry.name):
            return
        for donor in donors:
            record = _same(entry, inputs, sources, donor / entry.name)
            if record is not None and _copy_stage(donor / entry.name, workdir, record):
                say(f"{entry.name}: the same as in {donor}, and taken from there")
                return

    return take


def own_files(folder: Path) -> None:
    """Gives a stage bytes of its own in place of those that it shares with another run."""
    for path in list(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            _copy(path, path)


def _is_open(
    entry: StageEntry, inputs: Mapping[str, str], sources: Mapping[str, str], folder: Path
) -> bool:
    """Whether there is nothing in the folder of a stage, or a beginning of the very same work."""
    if (folder / COMPLETE_FILE).exists():
        return False
    if (folder / STARTED_FILE).exists():
        return _is_of(entry, inputs, sources, read_record(folder / STARTED_FILE))
    return not folder.exists() or all(file.name.startswith(".") for file in folder.iterdir())


def _same(
    entry: StageEntry, inputs: Mapping[str, str], sources: Mapping[str, str], folder: Path
) -> Record | None:
    """The record of a finished stage that is the same, with all its files; None: it is not."""
    if not (folder / COMPLETE_FILE).is_file() or (folder / STARTED_FILE).exists():
        return None
    try:
        record = read_record(folder / COMPLETE_FILE)
        if not _is_of(entry, inputs, sources, record):
            return None
        if REMOVED in record:
            say(f"{folder} is the same, but its model was removed (runtime.keep_models)")
            return None
        check_sizes(folder, record)
    except UserError as error:
        say(f"{folder} is not taken over: {error}")
        return None
    return record


def _is_of(
    entry: StageEntry, inputs: Mapping[str, str], sources: Mapping[str, str], record: Record
) -> bool:
    """Whether a record says what that of the stage will say."""
    return (
        difference(entry, record, inputs) is None
        and record.get("sources", {}) == dict(sources)
        and HISTORY not in record
    )


def _copy_stage(source: Path, workdir: Path, record: Record) -> bool:
    """Puts a stage's folder into a run, whole or not at all; False: it went away meanwhile."""
    place, temporary = workdir / source.name, workdir / f".{source.name}.taken"
    storage.make_folder(workdir)
    with storage.writing(place):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            shutil.copytree(source, temporary, copy_function=_link, ignore=_left_out)
        except shutil.Error as error:
            if _is_still(source, record):
                raise UserError(f"cannot take over {source}: {error.args[0][0][2]}") from error
        if not _is_still(source, record):
            shutil.rmtree(temporary, ignore_errors=True)
            return False
        if place.exists():
            shutil.rmtree(place)
        temporary.rename(place)
        storage.sync_folder(workdir)
    return True


def _is_still(source: Path, record: Record) -> bool:
    """Whether a stage was neither removed nor taken up again by its own run."""
    try:
        return read_record(source / COMPLETE_FILE) == record
    except UserError:
        return False


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What was set aside, and hidden files but for the copy of the record and the stage's times."""
    kept = (f".{COMPLETE_FILE}", TIMES_FILE)
    hidden = {name for name in names if name.startswith(".") and name not in kept}
    return hidden | {name for name in names if ".damaged" in Path(name).suffix}


def _link(source: str, target: str) -> None:
    try:
        if not os.path.islink(source):
            os.link(source, target)
            return
    except FileNotFoundError:
        raise
    except OSError:
        pass  # another file system, or one without links
    _copy(Path(source), Path(target))


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as old, storage.atomic_file(target) as new:
        shutil.copyfileobj(old, new, 1 << 20)
