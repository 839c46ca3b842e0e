"""The configs that come with the package, by name: `--config=llama8b_stair` runs anywhere.

`configs/` holds a file for each, which says how it is run. What follows a colon is an argument of
the recipe: `--config=llama8b_lora:24`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from stair_jax.errors import UserError

_MODELS = {"llama8b": "meta-llama/Llama-3.1-8B-Instruct", "qwen2_7b": "Qwen/Qwen2-7B-Instruct"}


def _paper(name: str, model: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The runs of one model: module, function and arguments by name."""
    runs: dict[str, tuple[str, str, dict[str, Any]]] = {
        f"{name}_sft": ("paper", "sft", {"model": model}),
        f"{name}_stair": ("paper", "stair", {"model": model}),
    }
    for number in (1, 2, 3):
        earlier = f"{name}_iter{number - 1}/dpo" if number > 1 else f"{name}_sft/sft"
        start = {"model": model, "init": f"runs/{earlier}/hf"}
        runs[f"{name}_iter{number}"] = ("paper", "iteration", {**start, "number": number})
    pairs = tuple(f"runs/{name}_iter{number}/preferences/prm.jsonl" for number in (1, 2, 3))
    last = {"model": model, "init": f"runs/{name}_iter3/dpo/hf"}
    runs[f"{name}_prm"] = ("paper", "prm", {**last, "pairs": pairs})
    return runs


# Of the study on real models: the recipes of a sweep, its config and its cells.
_STUDY_SWEEPS = {
    "study_shares": ("shares", "share_cells"),
    "study_rewards": ("one_iteration", "reward_cells"),
    "study_sizes": ("one_iteration", "size_cells"),
    "study_rates": ("rates", "rate_cells"),
    "study_judges": ("judges", "judge_cells"),
    "study_iterations": ("iterations", "iteration_cells"),
    "study_parts": ("parts", "part_cells"),
}


def _study() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The runs of the study on real models; the argument of each is the checkpoint."""
    alone = ("base", "sft", "system1", "contrast")
    others = ("trees", "offline", "self_rewarding", "deliberative", "test_time")
    runs: dict[str, tuple[str, str, dict[str, Any]]] = {
        f"study_{name}": ("study.arms", name, {}) for name in (*alone, *others)
    }
    for number in (1, 2, 3):
        runs[f"study_iter{number}"] = ("study.arms", "stair", {"number": number})
        runs[f"study_ours{number}"] = ("study.arms", "ours", {"number": number})
    runs["study_our_average"] = ("study.arms", "our_average", {})
    runs["study_steps"] = ("study.sweeps", "steps", {})
    runs |= {name: ("study.sweeps", config, {}) for name, (config, _) in _STUDY_SWEEPS.items()}
    return runs


RECIPES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "pocket": ("pocket_world", "get_config", {}),
    "pocket_base": ("pocket_base", "get_config", {}),
    "first_model": ("first_model", "first_model", {}),
    "study_pocket": ("study.pocket", "get_config", {}),
    "study_pocket_ablations": ("study.pocket_ablations", "get_config", {}),
    "study_pocket_narrow": ("study.pocket_narrow", "get_config", {}),
    "study_pocket_parts": ("study.pocket_ablations", "get_parts", {}),
    **_study(),
    **_paper("llama8b", _MODELS["llama8b"]),
    **_paper("qwen2_7b", _MODELS["qwen2_7b"]),
    **{f"{name}_lora": ("one_gpu", "lora", {"model": model}) for name, model in _MODELS.items()},
}
# The recipes with an argument, and its name.
_ARGUMENTS: Mapping[str, str] = {
    "first_model": "model",
    **{name: "model" for name in _study()},
    **{f"{name}_lora": "memory" for name in _MODELS},
}


# The recipes that have cells of a sweep: the function of the same module that gives them.
_SWEEPS: Mapping[str, str] = {
    "study_pocket_ablations": "get_sweep",
    "study_pocket_parts": "get_part_cells",
    **{name: cells for name, (_, cells) in _STUDY_SWEEPS.items()},
}


def get_config(name: str, argument: str = "") -> ConfigDict:
    """The config of a recipe.

    Args:
      name: one of `RECIPES`.
      argument: of the recipe, for those that have one; empty: its default.

    Raises:
      UserError: the recipe has no argument, or another one than is given.
    """
    _check_argument(name, argument)
    module, function, arguments = RECIPES[name]
    given = {_ARGUMENTS[name]: argument} if argument else {}
    config: ConfigDict = _function(module, function)(**arguments, **given)
    return config


def get_sweep(name: str, argument: str = "") -> Mapping[str, Any] | None:
    """The cells of a recipe's sweep, as `get_sweep()` of a config file gives them; None: none.

    Args:
      name: one of `RECIPES`.
      argument: of the recipe, for which the cells are the same.

    Raises:
      UserError: the recipe has no argument.
    """
    _check_argument(name, argument)
    return _function(RECIPES[name][0], _SWEEPS[name])() if name in _SWEEPS else None


def _check_argument(name: str, argument: str) -> None:
    if argument and name not in _ARGUMENTS:
        raise UserError(f"the recipe {name} has no argument: leave out :{argument}")


def _function(module: str, function: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)
