r"""The process reward model of Qwen2-7B-Instruct.

From the policy and the pairs of `qwen2_7b_iter1` to `qwen2_7b_iter3`.

On one device, a host with several, or a TPU slice of one host:

    python -m stair_jax.launch --config=configs/qwen2_7b_prm.py --workdir=runs/qwen2_7b_prm

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/qwen2_7b_prm.py --plan=v5p:2x2x1
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("qwen2_7b_prm")
