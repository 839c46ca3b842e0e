r"""SFT of Llama-3.1-8B-Instruct on structured answers (STAIR section 1).

`data/sft.jsonl` holds {id, prompt, answer, kind}: the paper has 10k safety and 10k helpfulness
examples.

On a TPU slice of one host, and on a host with 8 GPUs:

    python -m stair_jax.launch --config=configs/llama8b_sft.py --workdir=runs/llama8b_sft
    python -m stair_jax.launch --config=configs/llama8b_sft.py --workdir=runs/llama8b_sft \
        --config.runtime.decoding_mesh.tensor=1

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/llama8b_sft.py --plan=v5p:2x2x1
"""

import recipe
from ml_collections import ConfigDict

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config() -> ConfigDict:
    """The run."""
    return recipe.sft(MODEL)
