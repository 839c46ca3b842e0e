r"""The base, as it is and asked to think first.

    stair-jax --config=configs/study/base.py --workdir=runs/study/0/base

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_base", model)
