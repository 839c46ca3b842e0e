"""The study's ablations in the pocket world: cells of a sweep around the recipe `pocket`."""

from typing import Any

from ml_collections import ConfigDict

from stair_jax.recipes import pocket_world
from stair_jax.recipes.iterations import iteration_stages, unlink_iterations
from stair_jax.recipes.pocket_world import ITERATIONS
from stair_jax.recipes.study import pocket

_BEFORE = ("pocket:data", "model:base")


def get_config() -> ConfigDict:
    """The paper's recipe: SFT and three iterations, of which each cell changes something."""
    config = pocket_world.get_config()
    config.stages = (*_BEFORE, "sft", *iteration_stages(ITERATIONS), "evaluate")
    ask(config, ("sft", *(f"iter{i}" for i in range(1, ITERATIONS + 1))))
    return config


def get_parts() -> ConfigDict:
    """Our recipe, of which each cell leaves out one part."""
    config = pocket_world.get_config()
    unlink_iterations(config, ITERATIONS)
    pocket.link_ours(config)
    config.search.judge.harmless_refusals = "unsafe"
    config.dpo.adaptive_rates = 1.0
    before = (*_BEFORE, "pocket:our_data", "sft:sft_contrast")
    config.stages = (*before, *iteration_stages(ITERATIONS, pocket.OURS), "evaluate")
    ask(config, ("sft_contrast", *(f"ours{i}" for i in range(1, ITERATIONS + 1))))
    return config


def ask(config: ConfigDict, policies: tuple[str, ...]) -> None:
    """Greedy answers of these policies alone, and no sections of stages that are not there."""
    del config.system1, config.prm
    config.evaluate.models = policies
    config.evaluate.prompted = ""
    config.evaluate.searched = ""
    config.evaluate.methods = ()
    config.evaluate.prm = ""


def get_part_cells() -> dict[str, dict[str, Any]]:
    """Our recipe without one of its parts each."""
    return {
        "ours": {},
        "no_contrasts": {"our_data.contrasts": 0.0},
        "no_wrong_starts": {"our_data.forced_starts": 0.0},
        "no_harmless_refusals": {"search.judge.harmless_refusals": "unhelpful"},
        "no_adaptive_rates": {"dpo.adaptive_rates": 0.0},
    }


def get_sweep() -> dict[str, dict[str, Any]]:
    """The values of the fields that each cell changes, by its name."""
    return {
        "paper": {},
        "full_answers": {"preferences.variant": "trajectory", "preferences.match_steps": True},
        **_rewards(),
        **_judges(),
        **_sizes(),
        **_safety_shares(),
    }


def _rewards() -> dict[str, dict[str, Any]]:
    """Forms of R(H, S): F, and C2."""
    return {
        "reward_2s": {"search.reward.family": "2s"},
        "reward_quadratic": {"search.reward.family": "-s^2+2s"},
        "reward_c2_half": {"search.reward.c2": -0.5},
        "reward_c2_zero": {"search.reward.c2": 0.0, "search.reward.allow_unsafe": True},
    }


def _judges() -> dict[str, dict[str, Any]]:
    """Who judges, and how.

    Without a reasoning before it, a label means nothing here: its log-probs are read behind one.
    """
    expected = {"search.judge.mode": "both"}
    return {
        "judge_expected": expected,
        "judge_calibrated": {
            **expected,
            "search.judge.safety_score": "expected",
            "search.judge.calibrate": True,
        },
        "judge_rule": {"search.judge.source": ("rule", "policy")},
        "judge_errs": {"data.wrong_ratings": 0.3},  # of the examples that it learns from
        "judge_base": {"search.judge.source": "model", "search.judge_model": "base"},
    }


def _sizes() -> dict[str, dict[str, Any]]:
    """Iterations of a tree (n), and children of a node (m)."""
    return {
        **{f"n_{n}": {"search.num_iterations": n} for n in (8, 16, 64)},
        **{f"m_{m}": {"search.num_children": m} for m in (2, 8)},
    }


def _safety_shares() -> dict[str, dict[str, Any]]:
    """Share of safety prompts among the SFT examples; of the recipe: 5 of 12."""
    return {
        f"safety_{percent}": {"sft.rates": {"safety": percent, "helpfulness": 100 - percent}}
        for percent in (10, 25, 60, 80)
    }
