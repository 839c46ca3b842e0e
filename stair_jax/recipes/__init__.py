"""The configs that come with the package, by name: `--config=llama8b_stair` runs anywhere.

`configs/` holds a file for each, which says how it is run.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

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


RECIPES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "pocket": ("pocket_world", "get_config", {}),
    "pocket_base": ("pocket_base", "get_config", {}),
    **_paper("llama8b", _MODELS["llama8b"]),
    **_paper("qwen2_7b", _MODELS["qwen2_7b"]),
}


def get_config(name: str) -> ConfigDict:
    """The config of a recipe, one of `RECIPES`."""
    module, function, arguments = RECIPES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)(**arguments)
