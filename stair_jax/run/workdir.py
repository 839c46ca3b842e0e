"""What a working folder holds of a run: which stages are finished, which are to be done anew."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError, did_you_mean
from stair_jax.run.source_hashes import SourceHashes, changed_source
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.stage_records import (
    COMPLETE_FILE,
    STARTED_FILE,
    Record,
    changed_settings,
    check_sizes,
    difference,
    read_record,
    remove_record,
    write_record,
)

CONFIG_FILE = "config.json"  # the settings of the run
HISTORY = "history"

# (stage, fingerprints of its inputs, of the user's files): fills its folder, if it can
Fill = Callable[[StageEntry, Mapping[str, str], Mapping[str, str]], None]


@dataclass(frozen=True)
class StageState:
    """A stage of a run in its working folder.

    Attributes:
      is_finished: its artifact is there, made by the settings of the config.
      identity: what its record says, or will say.
      fingerprint: of its artifact, made or to be made.
    """

    is_finished: bool
    identity: Record
    fingerprint: str

    @property
    def history(self) -> list[dict[str, Any]]:
        """The settings of earlier lengths of a stage that was lengthened, oldest first."""
        return self.identity.get(HISTORY, [])


def stage_labels(workdir: Path) -> list[str]:
    """The stages of a run, as its config has them.

    Raises:
      UserError: the folder holds no run, or its config is damaged.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{workdir} holds no run: it has no {CONFIG_FILE}")
    config = storage.read_json(path)
    try:
        return [str(label) for label in config["stages"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: it lists no stages") from error


def write_config(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a run; a file that has them already stays as it is, with its time.

    Raises:
      UserError: it cannot be written.
    """
    path = workdir / CONFIG_FILE
    with suppress(UserError):  # there is none, or it is damaged
        if storage.read_json(path) == storage.plain(settings):
            return
    storage.write_json(path, settings)


def is_complete(workdir: Path, name: str) -> bool:
    """Whether a stage has a record of its completion, whatever this says."""
    return (workdir / name / COMPLETE_FILE).is_file()


def look(
    entries: Sequence[StageEntry], workdir: Path, fill: Fill | None = None
) -> dict[str, StageState]:
    """The state of each stage, in order; nothing is written but the cache of `SourceHashes`.

    Args:
      entries: of the run.
      workdir: of the run.
      fill: called for each stage before it is looked at, such as `reuse.taker`; None: nothing is.

    Raises:
      UserError: the folder holds what another config, or another content of the user's files, made;
        says what to do.
    """
    states: dict[str, StageState] = {}
    hashes = SourceHashes(workdir)
    for entry in entries:
        inputs = {name: states[name].fingerprint for name in entry.input_names}
        sources = hashes.of(entry.stage)
        if fill is not None:
            fill(entry, inputs, sources)
        states[entry.name] = _look_at(entry, inputs, sources, entries, workdir)
    return states


def dependents(names: Collection[str], entries: Sequence[StageEntry]) -> list[str]:
    """The stages named, and those that use their artifacts, directly or not; in order."""
    found = set(names)
    for entry in entries:
        if found & set(entry.input_names):
            found.add(entry.name)
    return [entry.name for entry in entries if entry.name in found]


def check_names(flag: str, names: Collection[str], entries: Sequence[StageEntry]) -> None:
    """Raises a UserError unless each name is that of a stage of the run."""
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            raise UserError(
                f"--{flag}={name}: the run has no such stage: {did_you_mean(name, known)}"
            )


def remove(names: Collection[str], workdir: Path) -> None:
    """Deletes the folders of stages."""
    for name in names:
        with storage.writing(workdir / name):
            if (workdir / name).exists():
                shutil.rmtree(workdir / name)


def check_lengthening(entry: StageEntry, inputs: Mapping[str, str], workdir: Path) -> Record:
    """The record of a stage that can be lengthened.

    Raises:
      UserError: it is not finished, differs in more than its length, or kept no state.
    """
    folder, field = workdir / entry.name, entry.stage.LENGTH
    if not field:
        raise UserError(
            f"--lengthen={entry.name}: a stage of the kind {entry.kind} has no length; "
            f"--redo={entry.name} makes it anew"
        )
    if not (folder / COMPLETE_FILE).exists():
        raise UserError(f"--lengthen={entry.name}: this stage is not finished")
    record = read_record(folder / COMPLETE_FILE)
    changed = changed_settings(entry, record)
    before, now = changed.pop(field, (None, None))
    if now is None or not now > before:
        raise UserError(
            f"--lengthen={entry.name}: config.{entry.name}.{field} is to be larger than it was"
        )
    same = dict(record["settings"]) | {field: now}
    if text := difference(entry, {**record, "settings": same}, inputs):
        raise UserError(f"--lengthen={entry.name}: the stage was finished with {text}")
    entry.stage.check_lengthening(folder)
    return record


def reopen(entry: StageEntry, record: Record, inputs: Mapping[str, str], workdir: Path) -> None:
    """Makes a finished stage one that was interrupted at the end of its former length."""
    folder = workdir / entry.name
    past = {"settings": record["settings"], "fingerprint": record["fingerprint"]}
    identity = {**entry.identity(inputs), HISTORY: [*record.get(HISTORY, []), past]}
    write_record(folder / STARTED_FILE, identity)
    entry.stage.reopen(folder)  # first: what it leaves would count as made at the new length
    remove_record(folder / COMPLETE_FILE)


def finish_reopening(entries: Sequence[StageEntry], workdir: Path) -> None:
    """Reopens the stages of which a killed run had only begun to."""
    for entry in entries:
        folder = workdir / entry.name
        if not all((folder / name).is_file() for name in (COMPLETE_FILE, STARTED_FILE)):
            continue
        done, begun = read_record(folder / COMPLETE_FILE), read_record(folder / STARTED_FILE)
        if len(begun.get(HISTORY, [])) > len(done.get(HISTORY, [])):
            entry.stage.reopen(folder)
            remove_record(folder / COMPLETE_FILE)


def _look_at(
    entry: StageEntry,
    inputs: Mapping[str, str],
    sources: Mapping[str, str],
    entries: Sequence[StageEntry],
    workdir: Path,
) -> StageState:
    folder = workdir / entry.name
    identity = entry.identity(inputs, sources)
    if (folder / COMPLETE_FILE).exists():
        record = read_record(folder / COMPLETE_FILE)
        _check_same(entry, record, "finished", inputs, sources, entries, workdir)
        check_sizes(folder, record)
        return StageState(True, identity, record["fingerprint"])
    if (folder / STARTED_FILE).exists():
        record = read_record(folder / STARTED_FILE)
        # What is read from the start again may be corrected.
        kept = sources if entry.stage.KEEPS else {}
        _check_same(entry, record, "started", inputs, kept, entries, workdir)
        if HISTORY in record:
            identity[HISTORY] = record[HISTORY]
    elif folder.exists() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise UserError(
            f"{folder} holds files, but no {COMPLETE_FILE} of a finished stage: "
            f"delete {folder}, or use another --workdir"
        )
    return StageState(False, identity, storage.fingerprint(identity))


def _check_same(
    entry: StageEntry,
    record: Record,
    state: str,
    inputs: Mapping[str, str],
    sources: Mapping[str, str],
    entries: Sequence[StageEntry],
    workdir: Path,
) -> None:
    """Compares what a record says of a stage with what the config and the user's files are."""
    text = difference(entry, record, inputs)
    changed = changed_source(record.get("sources", {}), sources)
    if text is None and changed is not None:
        text = f"another content of {changed} than it has now"
    if text is None:
        return
    stale = [name for name in dependents([entry.name], entries) if (workdir / name).exists()]
    field = entry.stage.LENGTH
    longer = ""
    if state == "finished" and field and list(changed_settings(entry, record)) == [field]:
        longer = f", --lengthen={entry.name} to go on with it"
    raise UserError(
        f"the stage {entry.name} was {state} with {text}: use another --workdir, or "
        f"--redo={entry.name}{longer}; --redo deletes and makes anew {', '.join(stale)}"
    )
