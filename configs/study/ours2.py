r"""Our recipe, iteration 2: other prompts, jailbreaks among them.

    stair-jax --config=configs/study/ours2.py --workdir=runs/study/0/ours2 \
        --reuse=runs/study/0/ours1

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_ours2", model)
