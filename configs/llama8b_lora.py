r"""All of STAIR on Llama-3.1-8B-Instruct by LoRA, on one GPU of 24, 48 or 80 GB (docs/one_gpu.md).

`data/sft.jsonl` holds {id, prompt, answer, kind}, `data/prompts1.jsonl` to `prompts3.jsonl`
{id, prompt, kind, source}. What comes out is in `policy/hf` and `reward/hf` of the workdir. The
memory of the GPU follows the name:

    python -m stair_jax.launch --config=configs/llama8b_lora.py:24 --workdir=runs/llama8b_lora

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_lora.py:24 --plan=rtx4090:1
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config(memory: str = "24") -> ConfigDict:
    """The run, on a GPU of so many GB: "24", "48" or "80"."""
    return recipes.get_config("llama8b_lora", memory)
