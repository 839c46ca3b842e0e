r"""All of STAIR once on a real model of 0.1B, on two CPU cores (docs/first_model.md).

The checkpoint, a hub id or a folder, follows the name:

    stair-jax data study --small --out=data/study
    python -m stair_jax.launch --config=configs/first_model.py --workdir=runs/first_model
    python -m stair_jax.launch --config=configs/first_model.py:/models/SmolLM2-135M-Instruct \
        --workdir=runs/first_model
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(model: str = "") -> ConfigDict:
    """The run, of this checkpoint."""
    return recipes.get_config("first_model", model)
