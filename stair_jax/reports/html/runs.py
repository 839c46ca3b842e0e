"""The stages of a run, and what it is in short."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.reports.html.schema import Run, Stage
from stair_jax.reports.records import FinishedStage, RunRecords
from stair_jax.run.stage_records import COMPLETE_FILE, STARTED_FILE
from stair_jax.run.stage_times import read_times
from stair_jax.run.workdir import CONFIG_FILE, stage_labels
from stair_jax.search.pair_report import read_report


def read_stages(run: RunRecords) -> list[Stage]:
    """All stages of the config of a run, finished or not.

    Raises:
      UserError: a record is damaged.
    """
    finished = {stage.name: stage for stage in run.stages}
    return [_stage(run.folder, label, finished) for label in stage_labels(run.folder)]


def run_head(run: RunRecords, name: str, counts: Mapping[str, int]) -> Run:
    """A run in short.

    Args:
      run: that is shown.
      name: that it has on the page.
      counts: its trees, pairs and cases.

    Raises:
      UserError: its config is damaged.
    """
    config: dict[str, Any] = storage.read_json(run.folder / CONFIG_FILE)
    seed = config.get("seed")
    return {
        "name": name,
        "folder": str(run.folder),
        "seed": seed if isinstance(seed, int) else None,
        "config": config,
        "trees": counts["trees"],
        "pairs": counts["pairs"],
        "cases": counts["cases"],
    }


def _stage(workdir: Path, label: str, finished: Mapping[str, FinishedStage]) -> Stage:
    kind, _, name = label.rpartition(":")
    stage = finished.get(name)
    record: Mapping[str, Any] = stage.record if stage else {}
    folder = workdir / name
    times = read_times(folder) if folder.is_dir() else []
    last = times[-1] if times else None
    return {
        "name": name,
        "kind": kind or name,
        "state": _state(folder),
        "seconds": sum(time.seconds for time in times) if times else None,
        "compile_seconds": sum(time.compile_seconds for time in times) if times else None,
        "device": last.device if last else "",
        "devices": last.devices if last else 0,
        "bytes": sum(file["bytes"] for file in record.get("files", {}).values()),
        "inputs": list(record.get("inputs", {})),
        "settings": dict(record.get("settings", {})),
        "summary": read_report(folder, name) if stage and stage.kind == "preferences" else "",
    }


def _state(folder: Path) -> str:
    if (folder / COMPLETE_FILE).is_file():
        return "done"
    return "under way" if (folder / STARTED_FILE).is_file() else "to do"
