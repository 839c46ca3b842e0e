r"""SFT of Qwen2-7B-Instruct on structured answers.

`data/sft.jsonl` holds {id, prompt, answer, kind}: the paper has 10k safety and 10k helpfulness
examples.

On one device, a host with several, or a TPU slice of one host:

    python -m stair_jax.launch --config=configs/qwen2_7b_sft.py --workdir=runs/qwen2_7b_sft

Will it fit? On any machine, without the weights:

    python -m stair_jax.launch --config=configs/qwen2_7b_sft.py --plan=v5p:2x2x1
"""

from ml_collections import ConfigDict

from stair_jax import recipes


def get_config() -> ConfigDict:
    """The run."""
    return recipes.get_config("qwen2_7b_sft")
