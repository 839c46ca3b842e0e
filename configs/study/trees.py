r"""Other uses of the first search: DPO on whole answers, SFT on good ones.

    stair-jax --config=configs/study/trees.py --workdir=runs/study/0/trees \
        --reuse=runs/study/0/iter1

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_trees", model)
