r"""The process reward model, and best-of-N and beam search by it and by self-reward.

    stair-jax --config=configs/study/test_time.py --workdir=runs/study/0/test_time \
        --reuse=runs/study/0/iter3

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_test_time", model)
