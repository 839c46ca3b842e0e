"""What stages measured step by step, thinned to what a screen can show."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.monitoring import METRICS_FILE, SPEED_FILE
from stair_jax.reports.html.schema import Curve
from stair_jax.reports.records import RunRecords
from stair_jax.run.stage_records import COMPLETE_FILE
from stair_jax.run.workdir import stage_labels

_MOST_POINTS = 1000
_DIGITS = 6
_FILES = {METRICS_FILE: False, SPEED_FILE: True}

Values = dict[float, dict[str, float]]


def read_curves(run: RunRecords) -> list[Curve]:
    """The curves of all stages; of one that is under way, as far as they are written.

    Raises:
      UserError: a file of a finished stage is damaged.
    """
    return [curve for label in stage_labels(run.folder) for curve in _curves(run.folder, label)]


def _curves(workdir: Path, label: str) -> Iterator[Curve]:
    kind, _, name = label.rpartition(":")
    for file, is_clock in _FILES.items():
        values = _by_step(workdir / name, file)
        steps = sorted(values)
        names = dict.fromkeys(name for step in steps for name in values[step])
        if not names:
            continue
        every = math.ceil(len(steps) / _MOST_POINTS)
        parts = [steps[start : start + every] for start in range(0, len(steps), every)]
        yield {
            "stage": name,
            "kind": kind or name,
            "clock": is_clock,
            "x": [part[-1] for part in parts],
            "series": {name: [_mean(values, part, name) for part in parts] for name in names},
            "every": every,
        }


def _by_step(folder: Path, file: str) -> Values:
    """The numbers of each step, of which a file may have several lines."""
    found: Values = {}
    path = folder / file
    try:
        for _, _, row in storage.iterate_jsonl(path) if path.is_file() else ():
            step = row.pop("step", None)
            if _is_number(step):
                numbers = {str(name): value for name, value in row.items() if _is_number(value)}
                found.setdefault(float(step), {}).update(numbers)
    except UserError:
        if (folder / COMPLETE_FILE).is_file():
            raise  # else the last line is being written
    return found


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Values, steps: Sequence[float], name: str) -> float | None:
    numbers = [values[step][name] for step in steps if name in values[step]]
    return float(f"{sum(numbers) / len(numbers):.{_DIGITS}g}") if numbers else None
