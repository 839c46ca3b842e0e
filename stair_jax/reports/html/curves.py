"""What stages measured step by step, thinned to what a screen can show."""

import math
from collections.abc import Iterator, Sequence

from stair_jax import storage
from stair_jax.monitoring import METRICS_FILE, SPEED_FILE
from stair_jax.reports.html.schema import Curve
from stair_jax.reports.records import FinishedStage, RunRecords

_MOST_POINTS = 1000
_DIGITS = 6
_FILES = {METRICS_FILE: False, SPEED_FILE: True}

Values = dict[float, dict[str, float]]


def read_curves(run: RunRecords) -> list[Curve]:
    """The curves of all finished stages.

    Raises:
      UserError: a file is damaged.
    """
    return [curve for stage in run.stages for curve in _curves(stage)]


def _curves(stage: FinishedStage) -> Iterator[Curve]:
    for file, is_clock in _FILES.items():
        if not (stage.folder / file).is_file():
            continue
        values = _by_step(stage, file)
        steps = sorted(values)
        names = dict.fromkeys(name for step in steps for name in values[step])
        if not names:
            continue
        every = math.ceil(len(steps) / _MOST_POINTS)
        parts = [steps[start : start + every] for start in range(0, len(steps), every)]
        yield {
            "stage": stage.name,
            "kind": stage.kind,
            "clock": is_clock,
            "x": [part[-1] for part in parts],
            "series": {name: [_mean(values, part, name) for part in parts] for name in names},
            "every": every,
        }


def _by_step(stage: FinishedStage, file: str) -> Values:
    """The numbers of each step, of which a file may have several lines."""
    found: Values = {}
    for _, _, row in storage.iterate_jsonl(stage.folder / file):
        step = row.pop("step", None)
        if not _is_number(step):
            continue
        numbers = {str(name): value for name, value in row.items() if _is_number(value)}
        found.setdefault(float(step), {}).update(numbers)  # type: ignore[arg-type]
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Values, steps: Sequence[float], name: str) -> float | None:
    numbers = [values[step][name] for step in steps if name in values[step]]
    return float(f"{sum(numbers) / len(numbers):.{_DIGITS}g}") if numbers else None
