"""How much of the disk a run will take, told before its first stage starts."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.run.out_of_memory import format_bytes
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.unneeded_models import unneeded_models

Models = Mapping[str, ModelConfig]


@dataclass(frozen=True)
class DiskNeed:
    """What the stages that are still to be done take of the disk, beside what is there.

    Attributes:
      most: bytes that are there at once: models, checkpoints, trees; at most, and about.
      least: bytes of the models alone, which are there for certain.
    """

    most: int
    least: int


def disk_need(
    entries: Sequence[StageEntry],
    left: Sequence[StageEntry],
    models: Models,
    keep_models: str = "all",
) -> DiskNeed:
    """The largest need from the first to the last stage.

    Args:
      entries: of the run.
      left: those still to be done.
      models: that the stages hand on, by name; what is not known counts as nothing.
      keep_models: see `Runtime`.
    """
    adapters = [name for name, model in models.items() if model.lora is not None]
    finished = [entry.name for entry in entries if entry not in left]
    removed = set(unneeded_models(entries, finished, adapters))
    most = least = held = held_models = 0
    for entry in left:
        stage, model = entry.stage, models.get(entry.name)
        most = max(most, held + stage.disk_bytes(model))
        held += stage.kept_bytes(model)
        held_models += stage.model_bytes(model)
        most, least = max(most, held), max(least, held_models)
        finished.append(entry.name)
        if keep_models == "needed":
            unneeded = set(unneeded_models(entries, finished, adapters)) - removed
            removed |= unneeded
            freed = sum(_model_bytes(each, models) for each in entries if each.name in unneeded)
            held, held_models = held - freed, held_models - freed
    return DiskNeed(most, least)


def _model_bytes(entry: StageEntry, models: Models) -> int:
    return entry.stage.model_bytes(models.get(entry.name))


def check_disk(
    entries: Sequence[StageEntry],
    left: Sequence[StageEntry],
    models: Models,
    keep_models: str,
    workdir: Path,
) -> None:
    """Refuses a run whose models the disk certainly cannot hold; see `disk_need`.

    Raises:
      UserError: says what would need less.
    """
    need = disk_need(entries, left, models, keep_models).least
    # What stages under way have written already is a part of what they need.
    room = free_bytes(workdir) + sum(folder_bytes(workdir / entry.name) for entry in left)
    if need <= room:
        return
    fewer = disk_need(entries, left, models, "needed").least
    advice = f"runtime.keep_models 'needed' ({format_bytes(fewer)}), " if fewer < need else ""
    raise UserError(
        f"the models that this run makes take {format_bytes(need)}, and the disk of {workdir} has "
        f"{format_bytes(room)} free: free some space, choose another --workdir, or set {advice}"
        "lora.rank, or hf_dtype 'bfloat16' of the stages that train"
    )


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which may not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
