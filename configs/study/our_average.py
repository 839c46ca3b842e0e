r"""The mean of the policies of our recipe's iterations.

    stair-jax --config=configs/study/our_average.py --workdir=runs/study/0/our_average \
        --reuse=runs/study/0/ours3

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_our_average", model)
