"""All of STAIR by low-rank adapters (LoRA) on one GPU, with the numbers of `paper.py` otherwise.

One base serves all stages: SFT makes adapters, each iteration goes on with them, DPO's reference is
the model as its stage began, and the reward model has adapters of its own. The sizes by hand are in
docs/one_gpu.md.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from stair_jax.errors import UserError
from stair_jax.recipes import paper

RANK = 64  # on all kernels [ours]
# Ten times those of full fine-tuning, which is about the ratio of the best rates of both
# (Schulman et al., "LoRA Without Regret", 2025) [ours].
RATES = {"sft": 5e-5, "dpo": 1e-5, "prm": 5e-5}

# What differs between GPUs, by their memory in GB: of the stages that train, and of the search.
_SIZES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "24": (
        {"base_weights": "int8", "microbatch_rows": 2, "remat": "attention"},
        {"weights": "fp8"},  # GPUs since Ada and Hopper multiply in it; others: "none"
    ),
    "48": ({"microbatch_rows": 2, "remat": "attention_mlp"}, {}),
    "80": ({"microbatch_rows": 4, "remat": "attention_mlp"}, {}),
}


def lora(model: str, memory: str = "24") -> ConfigDict:
    """SFT, three iterations, the process reward model, and both exported.

    Args:
      model: hub id of the checkpoint that all begins with.
      memory: of the GPU, in GB: "24", "48" or "80".

    Raises:
      UserError: there is no config for such a GPU.
    """
    if memory not in _SIZES:
        raise UserError(
            f"there is no config for a GPU of {memory[:40]!r} GB: name the next smaller one of "
            f"{', '.join(_SIZES)}"
        )
    training, search = _SIZES[memory]
    config = paper.stair(model)
    for name, rate in RATES.items():
        _use_adapters(config[name], rate, training)
    config.search.update(search)
    return config


def _use_adapters(section: ConfigDict, rate: float, sizes: Mapping[str, Any]) -> None:
    section.learning_rate = rate
    section.lora = ConfigDict({"rank": RANK})
    section.lora.train_tags = True  # rows that the checkpoint was never trained on [ours]
    section.lora.base_weights = sizes.get("base_weights", "none")
    section.param_dtype = "bfloat16"  # of the base; adapters and their moments are float32
    section.logps_chunks = 8
    section.update({name: sizes[name] for name in ("microbatch_rows", "remat")})
