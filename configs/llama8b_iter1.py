r"""Iteration 1 of STAIR on Llama-3.1-8B-Instruct: search, pairs, step-level DPO.

`data/prompts1.jsonl` holds {id, prompt, kind, source}: the paper has 5k safety and 5k
helpfulness prompts, no jailbreaks. The model is that of `llama8b_sft`.

On one device, a host with several, or a TPU slice of one host:

    python -m stair_jax.launch --config=configs/llama8b_iter1.py --workdir=runs/llama8b_iter1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_iter1.py --plan=v5p:2x2x1
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("llama8b_iter1")
