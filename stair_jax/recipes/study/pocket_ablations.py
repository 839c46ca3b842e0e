"""The study's ablations in the pocket world: cells of a sweep around the recipe `pocket`."""

from typing import Any

from ml_collections import ConfigDict

from stair_jax.recipes import pocket_world
from stair_jax.recipes.iterations import iteration_stages
from stair_jax.recipes.pocket_world import ITERATIONS


def get_config() -> ConfigDict:
    """The paper's recipe: SFT and three iterations, of which each cell changes something."""
    config = pocket_world.get_config()
    policies = ("sft", *(f"iter{i}" for i in range(1, ITERATIONS + 1)))
    config.stages = (
        "pocket:data",
        "model:base",
        "sft",
        *iteration_stages(ITERATIONS),
        "evaluate",
    )
    del config.system1
    config.evaluate.models = policies
    config.evaluate.prompted = ""
    config.evaluate.searched = ""
    config.evaluate.methods = ()
    config.evaluate.prm = ""
    return config


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
    """Who judges, and how."""
    expected = {"search.judge.mode": "expected"}
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
        f"safety_{percent}": {
            "sft.rates": {"safety": percent / 100, "helpfulness": 1 - percent / 100}
        }
        for percent in (10, 25, 60, 80)
    }
