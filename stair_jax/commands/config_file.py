"""Config files: a Python file with `get_config()`, or the name of a recipe in the package.

A file may also have `get_sweep()`, the cells of a sweep, which is given the same argument. The
`config.json` of a run is a config file too.
"""

import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stair_jax import recipes
from stair_jax.errors import UserError, did_you_mean
from stair_jax.storage import read_json


def load_config(path: str | None) -> ConfigDict:
    """The config that a file or a recipe gives; what follows a colon in `path` is its argument.

    Raises:
      UserError: there is no such file or recipe, or it fails.
    """
    if not path:
        raise UserError("--config is missing: name a config file, e.g. --config=configs/pocket.py")
    file, *arguments = path.split(":", 1)
    if file in recipes.RECIPES and not Path(file).exists():
        return recipes.get_config(file, *arguments)
    if not Path(file).is_file():
        known = f"of the recipes in the package {did_you_mean(file, recipes.RECIPES)}"
        raise UserError(f"there is no config file {file}; {known}")
    if file.endswith(".json"):
        return _read(file)
    config = _call(file, "get_config", arguments)
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config() of {file} gives a {type(config).__name__}, "
            "and has to give an ml_collections.ConfigDict"
        )
    return config


def _read(file: str) -> ConfigDict:
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise UserError(f"{file} is no config of a run: it has to be a JSON object")
    return ConfigDict(settings)


def load_sweep(path: str) -> Any:
    """What `get_sweep()` of a config file or a recipe gives; None: it has no such function.

    Raises:
      UserError: the file fails.
    """
    file, *arguments = path.split(":", 1)
    if file in recipes.RECIPES and not Path(file).exists():
        return recipes.get_sweep(file, *arguments)
    return _call(file, "get_sweep", arguments, required=False)


def _call(file: str, function: str, arguments: Sequence[str], required: bool = True) -> Any:
    """What a function of a config file gives; None: there is none, and none is required."""
    try:
        found = runpy.run_path(file).get(function)
        if found is not None:
            return found(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(_fault(file, error)) from error
    if required:
        raise UserError(f"the config file {file} has no function {function}()")
    return None


def _fault(file: str, error: BaseException) -> str:
    """What went wrong in a config file, with the line in it."""
    lines: list[Any] = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    where = f", line {lines[-1]}" if lines else ""
    return f"the config file {file} fails{where}: {type(error).__name__}: {error}"
