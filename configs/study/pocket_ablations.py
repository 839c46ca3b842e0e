r"""The study's ablations in the pocket world: cells around the paper's recipe, of one seed.

    stair-jax sweep --config=configs/study/pocket_ablations.py \
        --workdir=runs/study/pocket_ablations/seed0 --reuse=runs/study/pocket_study/seed0

Another seed needs `--config.seed=1` and a folder of its own. docs/pocket_study.md says how the
tables of several seeds are made.
"""

from typing import Any

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run that the cells change."""
    return recipes.get_config("study_pocket_ablations")


def get_sweep() -> dict[str, dict[str, Any]]:
    """The values of the fields that each cell changes, by its name."""
    return dict(recipes.get_sweep("study_pocket_ablations") or {})
