"""The base model of the pocket world, from nothing (stair_jax/pocket/base).

Two and a quarter minutes on an H200 (2026-11-22); hours on a CPU, by extrapolation:

    python -m stair_jax.launch --config=configs/pocket_base.py --workdir=runs/pocket_base
    cp runs/pocket_base/pretrain/hf/* stair_jax/pocket/base/
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("pocket_base")
