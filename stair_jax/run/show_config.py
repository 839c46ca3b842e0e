"""All settings of a run in words, for `--show-config`."""

from typing import Any

from stair_jax.run.run_config import RunConfig
from stair_jax.run.stage_list import leaves
from stair_jax.settings import values_of


def format_config(config: RunConfig) -> str:
    """A line per field, defaults included; each stage under its own name."""
    runtime = values_of(config.runtime, keep=lambda info, value: True)
    lines = [
        f"config.seed = {config.seed}",
        f"config.stages = {tuple(entry.label for entry in config.stages)!r}",
        *_lines("runtime", runtime),
    ]
    for entry in config.stages:
        lines += _lines(entry.name, entry.stage.effective())
    return "\n".join(lines)


def _lines(section: str, values: dict[str, Any]) -> list[str]:
    return [f"config.{section}.{name} = {value!r}" for name, value in leaves(values).items()]
