"""The sheet of a run: what the launcher says of it before the first stage."""

from collections.abc import Mapping
from pathlib import Path

import jax

from stair_jax.models.config import ModelConfig
from stair_jax.parallel.chips import GIB, local_chip
from stair_jax.run.disk import disk_need, free_bytes
from stair_jax.run.meshes import num_parameters
from stair_jax.run.run_config import RunConfig
from stair_jax.run.workdir import StageState


def format_sheet(
    config: RunConfig,
    workdir: Path,
    states: Mapping[str, StageState],
    models: Mapping[str, ModelConfig],
) -> str:
    """Stages, devices, parameters, amounts of work where they are known, and disk.

    Args:
      config: of the run.
      workdir: of the run.
      states: of its stages.
      models: that the stages hand on, by name.
    """
    left = [entry for entry in config.stages if not states[entry.name].is_finished]
    lines = [f"run {workdir}: {len(config.stages)} stages, {len(left)} to do"]
    if not left:
        return lines[0]
    lines.append(f"  devices     {_devices(config.runtime.cluster)}")
    sizes = list(dict.fromkeys(map(num_parameters, models.values())))
    if sizes:
        lines.append(f"  parameters  {', '.join(map(format_count, sizes))}")
    for entry in left:
        model = models.get(entry.name)
        parts = [entry.label, entry.stage.amount(), _disk(entry.stage.disk_bytes(model))]
        lines.append(f"  {entry.name:<11} {', '.join(part for part in parts if part)}")
    needed = disk_need(config.stages, left, models, config.runtime.keep_models).most
    free = free_bytes(workdir)
    note = "" if needed <= free else ": the disk may be full before the end"
    lines.append(
        f"  disk        about {format_bytes(needed)} at most, {format_bytes(free)} free{note}"
    )
    return "\n".join(lines)


def format_count(number: float) -> str:
    """1,234 as "1.2 thousand", 8.03e9 as "8.0 billion"."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:.0f}"


def format_bytes(number: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"


def _disk(number: int) -> str:
    return f"up to {format_bytes(number)}" if number else ""


def _devices(cluster: str) -> str:
    if cluster:  # those of this process are none of the run's
        return f"of the machines of {cluster}"
    chip = local_chip(jax.local_devices()[0])
    return f"{jax.device_count()} x {chip.name} of {chip.memory / GIB:.0f} GiB"
