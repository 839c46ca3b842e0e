r"""The study's arms in the pocket world, of one seed.

    stair-jax --config=configs/study/pocket.py --workdir=runs/study/pocket_study/seed0

docs/pocket_study.md says what the arms are, and how the tables of several seeds are made.
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("study_pocket")
