r"""Over-refusal by SFT data without look-alikes, and its mending, in the pocket world.

    stair-jax --config=configs/study/pocket_narrow.py --workdir=runs/study/pocket_narrow/seed0

docs/pocket_study.md says what the arms are, and how the tables of several seeds are made.
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("study_pocket_narrow")
