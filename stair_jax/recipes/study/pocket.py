"""The study's arms in the pocket world: STAIR, its baselines, and the recipe that we recommend."""

from ml_collections import ConfigDict

from stair_jax.recipes import pocket_world
from stair_jax.recipes.iterations import iteration_stages, link_iterations
from stair_jax.recipes.pocket_world import ITERATIONS

_OFFLINE_PAIRS = 480  # of each kind: as many as there are prompts in all searches together
_OURS = ("our_search", "our_pairs", "ours")


def get_config() -> ConfigDict:
    """The run: the stages of the recipe `pocket` as they are, then those of the other arms."""
    config = pocket_world.get_config()
    own = [stage for stage in config.stages if stage != "evaluate"]
    arms = ("base", "system1", "sft", *(f"iter{i}" for i in range(1, ITERATIONS + 1)))
    arms += (*_full(config), *_offline(config), *_ours(config))
    config.stages = (*own, *_STAGES, "evaluate", "evaluate:test_time")
    _evaluations(config, arms)
    return config


_STAGES = (
    "preferences:full_pairs",
    "dpo:dpo_full",
    "pocket:more_data",
    "dpo:dpo_direct",
    "dpo:helpful",
    "dpo:sacpo",
    "pocket:our_data",
    "sft:sft_contrast",
    *iteration_stages(ITERATIONS, _OURS),
)


def _full(config: ConfigDict) -> tuple[str, ...]:
    """DPO on whole answers of the first search, as many pairs as of steps."""
    config.full_pairs = ConfigDict(
        {"trees": "search1", "variant": "trajectory", "match_steps": True}
    )
    config.dpo_full = ConfigDict({"model": "sft", "preferences": "full_pairs"})
    return ("dpo_full",)


def _offline(config: ConfigDict) -> tuple[str, ...]:
    """DPO and SACPO on direct answers that no model has sampled, from the System-1 model.

    SACPO as in the paper: first helpfulness, with beta 0.1, then safety, with beta / lambda 0.025.
    """
    config.more_data = config.pocket.copy_and_resolve_references()
    config.more_data.num_pairs = _OFFLINE_PAIRS
    pairs = {"preferences": "more_data", "sft_weight": 0.0}
    config.dpo_direct = ConfigDict(
        {"model": "system1", "file": "pairs.jsonl", "beta": 0.1, **pairs}
    )
    config.helpful = ConfigDict(
        {"model": "system1", "file": "helpfulness_pairs.jsonl", "beta": 0.1, **pairs}
    )
    config.sacpo = ConfigDict(
        {"model": "helpful", "file": "safety_pairs.jsonl", "beta": 0.025, **pairs}
    )
    return "dpo_direct", "sacpo"


def _ours(config: ConfigDict) -> tuple[str, ...]:
    """The paper's iterations with contrast data in SFT and search."""
    config.our_data = ConfigDict({"contrasts": 0.25})
    config.sft_contrast = ConfigDict({"data": "our_data"})
    link_iterations(config, ITERATIONS, "sft_contrast", _OURS, "our_data")
    return "sft_contrast", *(f"ours{i}" for i in range(1, ITERATIONS + 1))


def _evaluations(config: ConfigDict, arms: tuple[str, ...]) -> None:
    """Greedy answers of all arms, and search at test time by the PRM and by self-reward."""
    config.evaluate.models = arms
    config.evaluate.searched = ""
    config.evaluate.methods = ()
    config.evaluate.prm = ""
    config.test_time = ConfigDict()
    config.test_time.models = ()
    config.test_time.prompted = ""
    config.test_time.searched = f"iter{ITERATIONS}"
    config.test_time.methods = (
        "best_of_n",
        "beam_search",
        "best_of_n_self_reward",
        "beam_search_self_reward",
    )
    config.test_time.prm = "prm"
