r"""STAIR on the pocket world: SFT, rounds of search and step-level DPO, PRM, test-time search.

    python -m stair_jax.launch --config=configs/pocket.py --workdir=runs/pocket

ends with a table, in minutes on two cores. Tune on other families and items than the table's:

    python -m stair_jax.launch --config=configs/pocket.py --workdir=runs/dev \
        --config.pocket.split=development
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("pocket")
