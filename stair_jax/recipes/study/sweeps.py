"""The ablations of the study on real models: cells of a sweep around one config each.

What cells have in common, with each other and with the arms, is made once.
"""

from typing import Any

from ml_collections import ConfigDict

from stair_jax.recipes.iterations import iteration_stages, link_iterations
from stair_jax.recipes.study.arms import (
    AVERAGE,
    OURS,
    USES_OF_TREES,
    add_ours,
    add_uses_of_trees,
    all_of_ours,
    judge_of_base,
    use_base_as_judge,
)
from stair_jax.recipes.study.real import (
    BASE,
    ITERATIONS,
    SFT,
    add_contrast,
    ask,
    base_config,
)

Cells = dict[str, dict[str, Any]]
POLICIES = (*(f"{OURS[2]}{i}" for i in range(1, ITERATIONS + 1)), AVERAGE)  # of our recipe


def shares(model: str = "") -> ConfigDict:
    """SFT alone; each cell has another share of safety rows."""
    config = base_config(model)
    ask(config, (*BASE, SFT), (SFT,))
    return config


def share_cells() -> Cells:
    """Shares of the draws; the file has about .4, and an epoch is as many draws as rows."""
    return {
        f"safety_{percent}": {"sft.rates": {"safety": percent, "helpfulness": 100 - percent}}
        for percent in (10, 25, 50, 75, 90)
    }


def one_iteration(model: str = "") -> ConfigDict:
    """SFT and one iteration of the paper's recipe, with the judge by which trees have pairs.

    That is the untouched base beside the rule: the ablations are about something else.
    """
    config = base_config(model)
    last = link_iterations(config, 1, SFT)
    use_base_as_judge(config)
    ask(config, (*BASE, SFT, *iteration_stages(1)), (last,))
    return config


def reward_cells() -> Cells:
    """Forms of R(H, S): F, and C2."""
    return {
        "s": {},
        "2s": {"search.reward.family": "2s"},
        "quadratic": {"search.reward.family": "-s^2+2s"},
        "c2_half": {"search.reward.c2": -0.5},
    }


def size_cells() -> Cells:
    """Iterations of a tree, n, and children of a node, m; prompts."""
    return {
        **{f"n_{n}": {"search.num_iterations": n} for n in (8, 16, 32, 64)},
        **{f"m_{m}": {"search.num_children": m} for m in (2, 8)},
        **{f"prompts_{p}": {"search.num_prompts": p} for p in (128, 512)},
    }


def rates(model: str = "") -> ConfigDict:
    """Our recipe; its iterations and their mean are asked the development rows alone."""
    config = base_config(model)
    add_ours(config, ITERATIONS)
    before = (*BASE, *add_contrast(config), *all_of_ours(config))
    ask(config, before, POLICIES)
    config.stages = (*before, "evaluate:dev")
    return config


def rate_cells() -> Cells:
    """What is to be chosen on `dev`: how far an iteration goes."""
    return {"plain": {}, "rate_1e-05": {"dpo.learning_rate": 1e-5}}


def judges(model: str = "") -> ConfigDict:
    """SFT and one iteration with the paper's judge; each cell has another one."""
    config = base_config(model)
    last = link_iterations(config, 1, SFT)
    ask(config, (*BASE, SFT, *iteration_stages(1)), (last,))
    return config


def judge_cells() -> Cells:
    """The model itself, as it is or trained to judge too; the untouched base; rule, reference."""
    expected = {"search.judge.mode": "expected", "search.judge.safety_score": "expected"}
    base = {"search.judge.source": "model", "search.judge_model": "base", **expected}
    calibrated = {"search.judge.calibrate": True}
    ours = {f"search.judge.{name}": value for name, value in judge_of_base().items()}
    return {
        "policy": {},
        "policy_expected": expected,
        "policy_calibrated": {**expected, **calibrated},
        "policy_replay": {"sft.replay": "judgements"},
        "base": base,
        "base_calibrated": {**base, **calibrated},
        "rule_policy": {"search.judge.source": ("rule", "reference", "policy")},
        "rule_base": {"search.judge_model": "base", **ours, "preferences.v1": 0.0},
    }


def parts(model: str = "") -> ConfigDict:
    """One iteration of our recipe; each cell leaves one part of it out."""
    config = base_config(model)
    last = add_ours(config, 1)
    ask(config, (*BASE, *add_contrast(config), *iteration_stages(1, OURS)), (last,))
    return config


def part_cells() -> Cells:
    """Without one part of our recipe each, so that what a part brings is the difference."""
    return {
        "ours": {},
        "no_contrast_rows": {"sft_contrast.data": "files"},
        "no_contrast_rewards": {"search.judge.harmless_refusals": "unhelpful"},
        "no_starts": {"search.forced_starts.share": 0.0},
        "no_forged_tags": {"search.forced_starts.forged_tags": 0.0},
        "no_shared_rollouts": {"search.more_pairs.share_rollouts": False},
        "malformed_too": {"preferences.well_formed": False},
        "no_length_control": {"dpo.length_penalty": 0.0},
        "no_balance": {"dpo.balance": "none"},
        "adaptive_rates": {"dpo.balance": "none", "dpo.adaptive_rates": 1.0},
        "c2_zero": {"search.reward.c2": 0.0, "search.reward.allow_unsafe": True},
    }


def steps(model: str = "") -> ConfigDict:
    """The same trees in three ways: DPO on steps, DPO on whole answers, SFT on good answers."""
    config = one_iteration(model)
    add_uses_of_trees(config)
    config.stages = (*config.stages[:-2], *USES_OF_TREES, *config.stages[-2:])
    config.evaluate.models = ("iter1", "dpo_full", "sft_trees")
    return config


def iterations(model: str = "") -> ConfigDict:
    """Three iterations, of which each cell changes something, at equal numbers of trees."""
    config = base_config(model)
    last = link_iterations(config, ITERATIONS, SFT)
    use_base_as_judge(config)
    ask(config, (*BASE, SFT, *iteration_stages(ITERATIONS)), (last,))
    return config


def iteration_cells() -> Cells:
    """K = 1..3; the pairs of one iteration for 3 epochs; all prompts in one iteration."""
    cells: Cells = {f"k_{k}": _cut(k, iteration_stages(k)) for k in range(1, ITERATIONS + 1)}
    cells["epochs_3"] = {**cells["k_1"], "dpo.epochs": 3.0}
    cells["at_once"] = {
        **_cut(1, _searches_first()),
        **{f"search{i}.model": SFT for i in range(2, ITERATIONS + 1)},
        "iter1.preferences": tuple(f"pairs{i}" for i in range(1, ITERATIONS + 1)),
    }
    return cells


def _searches_first() -> tuple[str, ...]:
    """Three searches with their pairs, then one stage of DPO."""
    stages = iteration_stages(ITERATIONS)
    return (*(stage for stage in stages if not stage.startswith("dpo:")), "dpo:iter1")


def _cut(count: int, stages: tuple[str, ...]) -> dict[str, Any]:
    """A cell of the given stages behind SFT, whose policy `iter<count>` is asked."""
    return {
        "stages": (*BASE, SFT, *stages, "evaluate", "evaluate:dev"),
        "evaluate.models": (f"iter{count}",),
    }
