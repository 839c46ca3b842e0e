r"""All of STAIR on Qwen2-7B-Instruct: SFT, three iterations, process reward model.

`data/sft.jsonl` holds {id, prompt, answer, kind}, `data/prompts1.jsonl` to `prompts3.jsonl`
{id, prompt, kind, source}. What comes out is in `policy/hf` and `reward/hf` of the workdir.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/qwen2_7b_stair.py --workdir=runs/qwen2_7b_stair
    python -m stair_jax.launch --config=configs/qwen2_7b_stair.py --workdir=runs/qwen2_7b_stair \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/qwen2_7b_stair.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "Qwen/Qwen2-7B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.stair(MODEL)
