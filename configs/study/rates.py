r"""What is chosen on the development rows: rates, beta, thresholds of pairs.

    stair-jax sweep --config=configs/study/rates.py --workdir=runs/study/rates

Another checkpoint, by hub id or folder, follows the name, and `,full` trains all its parameters
(docs/study.md).
"""

from typing import Any

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """What the cells change, of this checkpoint."""
    return recipes.get_config("study_rates", model)


def get_sweep(model: str = "") -> Any:
    """The cells."""
    return recipes.get_sweep("study_rates", model)
