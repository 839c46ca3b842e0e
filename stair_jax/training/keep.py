"""Which checkpoints a training run keeps, and what is left of them at its end."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from stair_jax.parallel import distributed

BEST_FILE = "best.json"  # beside the checkpoints of a run that keeps the best ones


@dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept.

    Attributes:
      newest: how many of the last ones.
      best: metric of their step by which others are kept too; "": none. Of a name that ends in
        "loss" or "norm" the lowest values are the best, of others the highest.
      num_best: how many of the best.
      use_best: whether a run ends with the state of the very best one instead of its last.
    """

    newest: int = 1
    best: str = ""
    num_best: int = 1
    use_best: bool = False


def has_state(folder: Path) -> bool:
    """Whether a folder of checkpoints holds a whole one."""
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def discard(folder: Path) -> None:
    """Deletes the checkpoints of a finished run, unless it kept the best ones."""
    if distributed.is_main() and not (folder / BEST_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)
