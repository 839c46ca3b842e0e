"""The state of a working folder in words; reads its records and nothing else."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from stair_jax.run.disk import folder_bytes
from stair_jax.run.lock import is_locked, lock_holder
from stair_jax.run.stage_records import (
    COMPLETE_FILE,
    STARTED_FILE,
    is_model_removed,
    read_record,
)
from stair_jax.run.sweep_manifest import Manifest, read_manifest
from stair_jax.run.workdir import CONFIG_FILE, stage_labels

_GIB = 2**30


def format_overview(
    workdir: Path, details: Mapping[str, Callable[[Path, str], str]] | None = None
) -> str:
    """A line per stage of the run's config, or per cell of a sweep: its state, and its size.

    Args:
      workdir: folder of a run, or of a sweep.
      details: by kind of stage, what is said of a finished one, by its folder and name.

    Raises:
      UserError: the folder holds no run, or a record is damaged.
    """
    if (manifest := read_manifest(workdir)) is not None:
        return _format_sweep(workdir, manifest)
    labels = stage_labels(workdir)
    names = [label.rpartition(":")[2] for label in labels]
    width = max(map(len, names), default=0)
    lines = [f"{workdir}: {_user(workdir)}"]
    for label, name in zip(labels, names, strict=True):
        kind = label.partition(":")[0]
        size = _format(folder_bytes(workdir / name))
        if is_model_removed(workdir / name):
            size += "  without its model, which is not needed any more"
        lines.append(f"  {name:<{width}}  {kind:<11}  {_state(workdir / name):<9}  {size}".rstrip())
        more = (details or {}).get(kind)
        if more is not None and (workdir / name / COMPLETE_FILE).exists():
            lines += textwrap.indent(more(workdir / name, name), " " * 6).splitlines()
    lines.append(f"  {_format(folder_bytes(workdir))} in all")
    return "\n".join(lines)


def _format_sweep(folder: Path, manifest: Manifest) -> str:
    """A line per cell: how many of its stages are done."""
    width = max(map(len, manifest.cells), default=0)
    lines = [f"{folder}: a sweep of {manifest.config}"]
    for name in manifest.cells:
        cell, said = folder / name, "to do"
        if (cell / CONFIG_FILE).is_file():
            names = [label.rpartition(":")[2] for label in stage_labels(cell)]
            done = sum((cell / each / COMPLETE_FILE).exists() for each in names)
            said = f"{done} of {len(names)} stages done"
            said += f", {_user(cell)}" if is_locked(cell) else ""
        lines.append(f"  {name:<{width}}  {said}")
    return "\n".join(lines)


def _user(workdir: Path) -> str:
    if not is_locked(workdir):
        return "not in use"
    return f"in use by {lock_holder(workdir).strip() or 'another run'}"


def _state(folder: Path) -> str:
    if (folder / COMPLETE_FILE).exists():
        read_record(folder / COMPLETE_FILE)
        return "done"
    return "under way" if (folder / STARTED_FILE).exists() else "to do"


def _format(size: int) -> str:
    if not size:
        return ""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"
