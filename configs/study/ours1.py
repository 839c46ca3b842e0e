r"""Our recipe, iteration 1; docs/study.md says what it changes.

    stair-jax --config=configs/study/ours1.py --workdir=runs/study/0/ours1 \
        --reuse=runs/study/0/sft

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_ours1", model)
