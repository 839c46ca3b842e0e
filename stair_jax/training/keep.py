"""Retention of checkpoints: which ones a training run keeps, and cleaning up at its end."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from stair_jax.parallel.processes import collectives

BEST_FILE = "best.json"  # in the folder of checkpoints, if the best ones are kept


@dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept.

    Attributes:
      newest: number of the most recent ones to keep.
      best: metric of the training step by which further checkpoints are kept; "": none. For a name
        that ends in "loss" or "norm" lower is better, for all others higher.
      num_best: number of the best ones to keep.
      use_best: whether a run returns the state of the best checkpoint instead of the last state.
    """

    newest: int = 1
    best: str = ""
    num_best: int = 1
    use_best: bool = False


def has_state(folder: Path) -> bool:
    """Whether a folder of checkpoints contains a complete one (they alone have plain numbers)."""
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def discard(folder: Path) -> None:
    """Deletes the checkpoints of a finished run, unless it keeps the best ones."""
    if collectives.is_main() and not (folder / BEST_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)
