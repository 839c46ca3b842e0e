"""`sweep.json` of a sweep's folder: which cell is which run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError

MANIFEST_FILE = "sweep.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """The cells of a sweep, those of earlier grids too.

    Attributes:
      config: file or recipe, as on the command line.
      overrides: of all cells, as on the command line.
      cells: for each cell, by its name, the values that it varies as text, by field.
    """

    config: str
    overrides: tuple[str, ...] = ()
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a sweep's folder; None: there is none.

    Raises:
      UserError: it is damaged, or of a newer stair_jax.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    values = storage.read_json(path)
    if not isinstance(values, dict) or not _is_whole(values):
        raise UserError(f"{path} is damaged: delete it, and run the sweep's command again")
    if values["schema"] > _SCHEMA:
        raise UserError(f"{path} was written by a newer stair_jax: update this one")
    return Manifest(values["config"], tuple(values["overrides"]), values["cells"])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest into the folder of a sweep."""
    storage.write_json(folder / MANIFEST_FILE, {"schema": _SCHEMA} | vars(manifest))


def _is_whole(values: Mapping[str, Any]) -> bool:
    kinds = {"schema": int, "config": str, "overrides": list, "cells": dict}
    return all(isinstance(values.get(name), kind) for name, kind in kinds.items()) and all(
        isinstance(cell, dict) and all(isinstance(text, str) for text in cell.values())
        for cell in values["cells"].values()
    )
