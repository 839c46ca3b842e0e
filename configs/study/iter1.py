r"""The paper's recipe, iteration 1: search by the model itself, pairs, step-level DPO.

    stair-jax --config=configs/study/iter1.py --workdir=runs/study/0/iter1 \
        --reuse=runs/study/0/sft

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_iter1", model)
