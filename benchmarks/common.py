"""What the benchmarks share: timing and JSON lines."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def median_seconds(
    run: Callable[[Any], Any], prepare: Callable[[], Any] = lambda: None, repeats: int = 5
) -> float:
    """Median time of run(prepare()); prepare and a first run, which compiles, are not counted."""
    seconds = []
    for _ in range(repeats + 1):
        argument = jax.block_until_ready(prepare())
        start = time.perf_counter()
        jax.block_until_ready(run(argument))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def report(
    name: str,
    value: float,
    unit: str,
    *,
    ratio_to: tuple[str, float] | None = None,
    floor: float | None = None,
) -> None:
    """Prints a figure; ratio_to is (name, value) of the figure to compare with, floor the bar."""
    line: dict[str, Any] = {"name": name, "value": float(f"{value:.4g}"), "unit": unit}
    if ratio_to is not None:
        line |= {"ratio_to": ratio_to[0], "ratio": float(f"{value / ratio_to[1]:.4g}")}
    if floor is not None:
        line["floor"] = floor
    print(json.dumps(line), flush=True)
