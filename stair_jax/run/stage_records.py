"""What a stage's folder says of the stage: `started.json`, and `complete.json` when it is finished.

A record holds kind, version, name, seed, the settings that the artifact depends on, and the
fingerprints of the inputs and of the user's own files; that of a finished stage also its own
fingerprint, the size and sha256 of each file, and which files were removed since
(`unneeded_models.py`). A finished stage is used again only where the record and the config agree,
and where the user's files are as they were. Each record has a hidden copy, so that one damaged
small file does not cost the work of days.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.stage_list import StageEntry, leaves
from stair_jax.settings import UNSET, default_of, nested_settings, rule_of, type_hints

COMPLETE_FILE = "complete.json"
STARTED_FILE = "started.json"
REMOVED = "removed"  # the field that lists files of a model that is not needed any more
Record = dict[str, Any]
_ABSENT = "(no such field)"


def read_record(path: Path) -> Record:
    """A record, checked for its form; a damaged one is made anew from its copy.

    Raises:
      UserError: both are damaged.
    """
    record = _read_whole(path)
    if record is None and (record := _read_whole(_copy(path))) is not None:
        say(f"{path} is damaged: its copy, {_copy(path).name}, takes its place")
        with suppress(UserError):  # of one who may only read
            storage.write_json(path, record)
    if record is None:
        raise UserError(
            f"{path} is damaged: restore this file from a copy; or else delete {path.parent}, and "
            "run again to make the stage anew"
        )
    return record


def write_record(path: Path, record: Record) -> None:
    """Writes a record and its copy."""
    storage.write_json(_copy(path), record)  # first: so it is never older than the record
    storage.write_json(path, record)


def remove_record(path: Path) -> None:
    """Deletes a record and its copy."""
    with storage.writing(path):
        path.unlink()
        _copy(path).unlink(missing_ok=True)


def _copy(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _read_whole(path: Path) -> Record | None:
    """A record; None if it is damaged or not there."""
    try:
        record: Record = storage.read_json(path)
        whole = all(
            isinstance(record[field], kind)
            for field, kind in (("kind", str), ("name", str), ("seed", int))
        ) and all(isinstance(record[field], dict) for field in ("settings", "inputs"))
        whole &= isinstance(record.get("sources", {}), dict)
        if path.name.endswith(COMPLETE_FILE):
            whole &= isinstance(record["fingerprint"], str)
            whole &= all({"bytes", "sha256"} <= file.keys() for file in record["files"].values())
            whole &= set(record.get(REMOVED, ())) <= record["files"].keys()
    except (UserError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if whole else None


def difference(entry: StageEntry, record: Record, inputs: Mapping[str, str]) -> str | None:
    """The first difference between a record and what the config asks for, in words.

    Args:
      entry: the stage as the config has it.
      record: of its folder.
      inputs: fingerprints of the artifacts that it reads, by name of their stage.
    """
    wanted = entry.identity(inputs)
    for field in ("kind", "name", "seed"):
        if record[field] != wanted[field]:
            return f"{field} = {record[field]!r}, and now it is {wanted[field]!r}"
    if (before := record.get("version", 1)) != wanted["version"]:
        return (
            f"version {before} of the kind {entry.kind}, and this stair_jax has version "
            f"{wanted['version']}, whose results are others"
        )
    for field, (before, now) in changed_settings(entry, record).items():
        section = entry.name if field in entry.own_fields else entry.kind
        return f"config.{section}.{field} = {before!r}, and now it is {now!r}"
    for name in sorted({*record["inputs"], *wanted["inputs"]}):
        if record["inputs"].get(name) != wanted["inputs"].get(name):
            return f"another output of the stage {name} than this config makes"
    return None


def changed_settings(entry: StageEntry, record: Record) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ between a record and the config: (before, now) by dotted name.

    A field that the record lacks counts as what its class says that the absence means; one that
    changes cost alone is passed over.
    """
    cost = set(entry.stage.cost_fields())
    old = {name: value for name, value in record["settings"].items() if name not in cost}
    before, now = (
        leaves(storage.plain(_completed(type(entry.stage), values, cost), keep_nonfinite=True))
        for values in (old, entry.stage.identity())
    )
    fields = sorted({*before, *now})
    pairs = {field: (before.get(field, _ABSENT), now.get(field, _ABSENT)) for field in fields}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def _completed(cls: type, values: Mapping[str, Any], cost: set[str]) -> dict[str, Any]:
    """The settings of a record, with those that it lacks."""
    result = dict(values)
    for info in dataclasses.fields(cls):
        nested = nested_settings(type_hints(cls)[info.name])
        if info.name in cost and rule_of(info).cost:
            continue
        if nested and isinstance(result.get(info.name, {}), Mapping):
            result[info.name] = _completed(nested, result.get(info.name, {}), cost)
        elif info.name not in result:
            absent = rule_of(info).absent
            result[info.name] = default_of(info) if absent is UNSET else absent
    return result


def write_complete(folder: Path, identity: Record) -> None:
    """Writes the record of a stage that has run, and removes that of its start."""
    files = {path: _describe(folder / path) for path in _artifact_files(folder)}
    fingerprint = storage.fingerprint(identity)
    complete = {**identity, "fingerprint": fingerprint, "files": files}
    write_record(folder / COMPLETE_FILE, complete)
    remove_record(folder / STARTED_FILE)


def check_sizes(folder: Path, record: Record) -> None:
    """Checks that the files of a finished stage are there, at their sizes."""
    for name, file in _files_there(record).items():
        if not (folder / name).is_file():
            raise UserError(_made_anew(folder / name, "is missing", folder))
        if (folder / name).stat().st_size != file["bytes"]:
            raise UserError(_made_anew(folder / name, "has changed since then", folder))


def check_bytes(folder: Path) -> None:
    """Checks the files of a finished stage byte by byte, before another stage reads them."""
    for name, file in _files_there(read_record(folder / COMPLETE_FILE)).items():
        if storage.fingerprint_file(folder / name) != file["sha256"]:
            raise UserError(_made_anew(folder / name, "has changed since then", folder))


def is_model_removed(folder: Path) -> bool:
    """Whether a stage is finished, and its model was not needed any more."""
    path = folder / COMPLETE_FILE
    record = _read_whole(path) or _read_whole(_copy(path)) if path.is_file() else None
    return record is not None and REMOVED in record


def _files_there(record: Record) -> dict[str, dict[str, Any]]:
    """What the record says of each file that was not removed."""
    removed = record.get(REMOVED, ())
    return {name: file for name, file in record["files"].items() if name not in removed}


def _artifact_files(folder: Path) -> list[str]:
    """The files that later stages may read; checkpoints and events only serve while it runs."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in files
        if path.parts[0] not in ("checkpoints", STARTED_FILE, COMPLETE_FILE)
        and not path.name.startswith("events.out.")
        and ".damaged" not in path.suffix  # set aside, with a message
        and not any(part.startswith(".") for part in path.parts)
    )


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": storage.fingerprint_file(path)}


def _made_anew(path: Path, what: str, folder: Path) -> str:
    return (
        f"the stage {folder.name} was finished, but its file {path} {what}: "
        f"run again with --redo={folder.name}, or delete {folder}, to make it anew"
    )
