"""Over-refusal in the pocket world: SFT data whose safety prompts are all hazards, and its mending.

The recipe `pocket` has as many harmless look-alikes as hazards among its safety prompts, real SFT
data have none.
"""

from ml_collections import ConfigDict

from stair_jax.recipes import pocket_world
from stair_jax.recipes.iterations import iteration_stages, link_iterations, unlink_iterations
from stair_jax.recipes.pocket_world import ITERATIONS
from stair_jax.recipes.study.pocket_ablations import ask

_NARROW = ("narrow_search", "narrow_pairs", "narrow")
_MENDED = ("mended_search", "mended_pairs", "mended")
_CONTRAST = {"contrasts": 0.25, "labels": True}


def get_config() -> ConfigDict:
    """From one SFT the paper's iterations, and the same with contrast prompts; SFT with them."""
    config = pocket_world.get_config()
    unlink_iterations(config, ITERATIONS)
    config.narrow_data = ConfigDict({"lookalikes": 0.0})
    config.mended_data = ConfigDict({"lookalikes": 0.0, **_CONTRAST})
    config.narrow_sft = ConfigDict({"data": "narrow_data"})
    config.mended_sft = ConfigDict({"data": "mended_data"})
    link_iterations(config, ITERATIONS, "narrow_sft", _NARROW, "narrow_data")
    link_iterations(config, ITERATIONS, "narrow_sft", _MENDED, "mended_data")
    for i in range(1, ITERATIONS + 1):
        config[f"{_MENDED[0]}{i}"].judge = ConfigDict({"harmless_refusals": "unsafe"})
    config.stages = (
        "pocket:data",
        "pocket:narrow_data",
        "pocket:mended_data",
        "model:base",
        "sft:narrow_sft",
        "sft:mended_sft",
        *iteration_stages(ITERATIONS, _NARROW),
        *iteration_stages(ITERATIONS, _MENDED),
        "evaluate",
    )
    numbers = range(1, ITERATIONS + 1)
    policies = [f"{chain[2]}{i}" for chain in (_NARROW, _MENDED) for i in numbers]
    ask(config, ("base", "narrow_sft", "mended_sft", *policies))
    return config
