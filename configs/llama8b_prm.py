r"""The process reward model of Llama-3.1-8B-Instruct (STAIR section 6).

From the policy and the pairs of `llama8b_iter1` to `llama8b_iter3`.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/llama8b_prm.py --workdir=runs/llama8b_prm
    python -m stair_jax.launch --config=configs/llama8b_prm.py --workdir=runs/llama8b_prm \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_prm.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.prm(
        MODEL,
        "runs/llama8b_iter3/dpo/hf",
        pairs=tuple(f"runs/llama8b_iter{i}/preferences/prm.jsonl" for i in (1, 2, 3)),
    )
