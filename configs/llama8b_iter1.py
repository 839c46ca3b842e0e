r"""Iteration 1 of STAIR on Llama-3.1-8B-Instruct: search, pairs, step-level DPO.

`data/prompts1.jsonl` holds {id, prompt, kind, source}: the paper has 5k safety and 5k
helpfulness prompts, no jailbreaks. The model is that of `llama8b_sft`.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/llama8b_iter1.py --workdir=runs/llama8b_iter1
    python -m stair_jax.launch --config=configs/llama8b_iter1.py --workdir=runs/llama8b_iter1 \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_iter1.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.iteration(MODEL, "runs/llama8b_sft/sft/hf", number=1)
