r"""Deliberative Alignment: answers written beside a policy, learnt without it.

    stair-jax --config=configs/study/deliberative.py --workdir=runs/study/0/deliberative \
        --reuse=runs/study/0/sft

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("study_deliberative", model)
