r"""All of STAIR on Llama-3.1-8B-Instruct: SFT, three iterations, process reward model.

`data/sft.jsonl` holds {id, prompt, answer, kind}, `data/prompts1.jsonl` to `prompts3.jsonl`
{id, prompt, kind, source}. What comes out is in `policy/hf` and `reward/hf` of the workdir.

On one device, a host with several, or a TPU slice of one host:

    python -m stair_jax.launch --config=configs/llama8b_stair.py --workdir=runs/llama8b_stair

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_stair.py --plan=v5p:2x2x1
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("llama8b_stair")
