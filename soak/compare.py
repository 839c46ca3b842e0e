"""Comparison of the artifacts of two runs: trees, pairs, weights, tables, records."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stair_jax.record_log import RecordLog

# These depend on the clock, the hidden copy of a record by the hashes in it.
_CLOCK_FILES = (
    "*/speed.jsonl",
    "*/.times.jsonl",
    "*/events.out.tfevents.*",
    "*/.complete.json",
)
_TREES = "*/trees.jsonl.gz"
_CLOCK_FIELD = "seconds"  # of the record of a tree
_RECORD = "*/complete.json"


def differences(expected: Path, found: Path) -> list[str]:
    """Differences between the stages of two finished runs, one line each."""
    files = [_files(folder) for folder in (expected, found)]
    lines = [f"{name} is missing" for name in sorted(files[0] - files[1])]
    lines += [f"{name} is surplus" for name in sorted(files[1] - files[0])]
    for name in sorted(files[0] & files[1]):
        if _content(expected, name) != _content(found, name):
            lines.append(f"{name} differs")
    return lines


def tree_ids(workdir: Path) -> set[str]:
    """Ids of the trees on disk, in the files of all processes."""
    logs = [path for path in workdir.glob("*/*") if path.name.endswith(_TREES[2:])]
    return {record["id"] for path in logs for record in RecordLog(path)}


def read_trees(path: Path) -> list[dict[str, Any]]:
    """The trees of a search by id, without the field that depends on the clock."""
    records = RecordLog(path).read()
    for record in records:
        del record[_CLOCK_FIELD]
    return sorted(records, key=lambda record: record["id"])


def _files(folder: Path) -> set[str]:
    """Paths in the folders of the stages, without files that depend on the clock."""
    paths = (path.relative_to(folder) for path in folder.glob("[!.]*/**/*") if path.is_file())
    names = {path.as_posix() for path in paths}
    return {name for name in names if not _depends_on_clock(name)}


def _depends_on_clock(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _CLOCK_FILES)


def _content(folder: Path, name: str) -> Any:
    if fnmatch(name, _TREES):
        return read_trees(folder / name)
    if fnmatch(name, _RECORD):
        return _record(folder / name)
    return (folder / name).read_bytes()


def _record(path: Path) -> dict[str, Any]:
    """The record of a stage, without the checksums of files that depend on the clock."""
    record = json.loads(path.read_text())
    stage = path.parent.name
    record["files"] = {
        name: file
        for name, file in record["files"].items()
        if not _depends_on_clock(f"{stage}/{name}") and not fnmatch(f"{stage}/{name}", _TREES)
    }
    return dict(record)
