r"""Our recipe, iteration 3: other prompts, jailbreaks among them.

    stair-jax --config=configs/study/ours3.py --workdir=runs/study/0/ours3 \
        --reuse=runs/study/0/ours2

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_ours3", model)
