r"""Numbers of iterations, and what takes their place at the same number of trees.

    stair-jax sweep --config=configs/study/iterations.py --workdir=runs/study/iterations

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from typing import Any

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """What the cells change, of this checkpoint."""
    return recipes.get_config("study_iterations", model)


def get_sweep(model: str = "") -> Any:
    """The cells."""
    return recipes.get_sweep("study_iterations", model)
