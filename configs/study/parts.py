r"""One iteration of our recipe, and of it without one of its parts each.

    stair-jax sweep --config=configs/study/parts.py --workdir=runs/study/parts

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from typing import Any

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """What the cells change, of this checkpoint."""
    return recipes.get_config("study_parts", model)


def get_sweep(model: str = "") -> Any:
    """The cells."""
    return recipes.get_sweep("study_parts", model)
