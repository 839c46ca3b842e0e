r"""Iteration 3 of STAIR on Llama-3.1-8B-Instruct: search, pairs, step-level DPO.

`data/prompts3.jsonl` holds {id, prompt, kind, source}: the paper has 5k safety and 5k
helpfulness prompts, 2k jailbreaks among the safety prompts. The model is that of `llama8b_iter2`.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/llama8b_iter3.py --workdir=runs/llama8b_iter3
    python -m stair_jax.launch --config=configs/llama8b_iter3.py --workdir=runs/llama8b_iter3 \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_iter3.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.iteration(MODEL, "runs/llama8b_iter2/dpo/hf", number=3)
