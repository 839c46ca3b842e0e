r"""All of STAIR on Llama-3.1-8B-Instruct: SFT, three iterations, process reward model.

`data/sft.jsonl` holds {id, prompt, answer, kind}, `data/prompts1.jsonl` to `prompts3.jsonl`
{id, prompt, kind, source}. What comes out is in `policy/hf` and `reward/hf` of the workdir.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/llama8b_stair.py --workdir=runs/llama8b_stair
    python -m stair_jax.launch --config=configs/llama8b_stair.py --workdir=runs/llama8b_stair \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_stair.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.stair(MODEL)
