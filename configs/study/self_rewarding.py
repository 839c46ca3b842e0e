r"""Self-Rewarding: three rounds of the best answer against the worst, by the model itself.

    stair-jax --config=configs/study/self_rewarding.py --workdir=runs/study/0/self_rewarding \
        --reuse=runs/study/0/sft

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_self_rewarding", model)
