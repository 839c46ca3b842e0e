r"""SFT on structured answers and contrast rows, from which our recipe goes on.

    stair-jax --config=configs/study/contrast.py --workdir=runs/study/0/contrast

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_contrast", model)
