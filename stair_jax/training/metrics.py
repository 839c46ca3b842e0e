"""Training metrics: logging, throughput and MFU, detection of non-finite losses."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError, did_you_mean
from stair_jax.models import flops
from stair_jax.monitoring import Metrics, Progress
from stair_jax.parallel.chips import device_chip
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json
from stair_jax.training.batches import Batch
from stair_jax.training.objectives import PrmObjective
from stair_jax.training.step import Objective

Inspect = Callable[[int, Mapping[str, float]], None]

NONFINITE_FILE = "nonfinite.json"


class StepMetrics:
    """Logs the metrics of each step, one step late, so that the device never waits for the host.

    `metrics.jsonl` receives the metrics of the step (loss, grad_norm, those of the objective),
    learning_rate, tokens, and padding (share of positions without a token). `speed.jsonl` receives
    seconds, tokens_per_second and mfu, measured from the end of the previous step to the end of
    this one, everything in between included. The first step of a process compiles and has none.
    """

    def __init__(
        self,
        folder: Path,
        metrics: Metrics,
        progress: Progress,
        throughput: "Throughput",
        shown: Iterable[str] = ("loss",),
        best: str = "",
        inspect: Inspect | None = None,
    ):
        """Starts with no step pending.

        Args:
          folder: receives `nonfinite.json`.
          metrics: the writer of the metrics.
          progress: the progress lines.
          throughput: measures the steps.
          shown: names of the metrics shown in progress lines.
          best: metric by which checkpoints are kept; "": none.
          inspect: called with (step, metrics); may raise.
        """
        self._folder, self._metrics, self._progress = folder, metrics, progress
        self._throughput, self._shown, self._best, self._inspect = (
            throughput,
            tuple(shown),
            best,
            inspect,
        )
        self._pending: tuple[int, Batch, float, Mapping[str, jax.Array]] | None = None

    def add(
        self, step: int, batch: Batch, learning_rate: float, values: Mapping[str, jax.Array]
    ) -> None:
        """Queues the metrics of a step just dispatched, and logs those of the previous step.

        Args:
          step: number of the dispatched step.
          batch: its batch.
          learning_rate: its rate.
          values: its metrics, scalars that may not be computed yet.

        Raises:
          UserError: the loss or gradient norm of the previous step is not finite, or `best` is not
            among the metrics.
        """
        if self._best and self._best not in values:
            raise UserError(
                f"keep_best is {self._best!r}: no metric of these steps has this name: "
                f"{did_you_mean(self._best, values)}"
            )
        self.flush()
        self._pending = (step, batch, learning_rate, values)

    def flush(self) -> dict[str, float]:
        """Waits for the pending step, checks and logs its metrics, and returns them.

        Returns {} if no step is pending.
        """
        if self._pending is None:
            return {}
        step, batch, learning_rate, pending = self._pending
        self._pending = None  # before anything can raise: a step is logged at most once
        values = {name: float(value) for name, value in jax.device_get(pending).items()}
        clock = self._throughput.measure(batch)
        self._check(step, batch, values)  # before it is logged
        if self._inspect is not None:
            self._inspect(step, values)
        values |= {
            "learning_rate": learning_rate,
            "tokens": batch.num_tokens,
            "padding": 1 - batch.num_tokens / batch.num_positions,
        }
        self._metrics.write(step, values, clock)
        shown = {name: values[name] for name in self._shown}
        shown |= {name: clock[name] for name in ("mfu",) if name in clock}
        self._progress.update(step + 1, **shown)
        return values

    def _check(self, step: int, batch: Batch, values: Mapping[str, float]) -> None:
        """Raises a UserError if loss or gradient norm is not finite; names the step's examples."""
        for name in ("loss", "grad_norm"):
            if math.isfinite(values[name]):
                continue
            path = self._folder / NONFINITE_FILE
            if collectives.is_main():
                found = {"step": step, **values, "micro_batches": _groups(batch)}
                write_json(path, found)
            raise UserError(
                f"{name} is {values[name]} at step {step}, whose examples are in {path}: "
                "lower learning_rate, or check these examples"
            )


class Throughput:
    """Step time, throughput and model FLOPs utilisation (MFU)."""

    def __init__(self, objective: Objective, mesh: Mesh):
        """The clock starts at the end of the first step.

        Args:
          objective: of the run; without an attribute `config`, there is no MFU.
          mesh: the devices, all of one kind.
        """
        self._config = getattr(objective, "config", None)
        self._head = not isinstance(objective, PrmObjective)
        peak = device_chip(mesh.devices.flat[0]).flops
        self._peak = None if peak is None else peak * mesh.devices.size
        self._last: float | None = None

    def measure(self, batch: Batch) -> dict[str, float]:
        """Metrics of the step that has just ended; {} for the first one.

        "seconds", "tokens_per_second" (padding excluded) and "mfu": `micro_training_flops` per
        second as a fraction of the devices' peak. "mfu" is left out if either is not known.
        """
        now, before = time.perf_counter(), self._last
        self._last = now
        if before is None or now <= before:
            return {}
        seconds = now - before
        found = {"seconds": seconds, "tokens_per_second": batch.num_tokens / seconds}
        if self._config is not None and self._peak is not None:
            found["mfu"] = self._flops(batch) / (seconds * self._peak)
        return found

    def _flops(self, batch: Batch) -> float:
        """FLOPs of a step over all processes, extrapolated from the rows of this process."""
        assert self._config is not None
        count = int(batch.arrays["count"])
        micro = {
            name: np.asarray(batch.arrays["micro"][name])[:count]
            for name in ("segment_ids", "weights", "ends")
            if name in batch.arrays["micro"]
        }
        rows = micro["segment_ids"].shape[1]
        share = rows / (batch.num_rows or rows)
        return flops.micro_training_flops(self._config, micro, self._head) / share


def _groups(batch: Batch) -> list[list[str]]:
    """Ids of the groups of each micro-batch in use; one list of all if the split is not known."""
    numbers = sorted({number for micro in batch.members for number in micro})
    if len(numbers) != len(batch.ids):
        return [list(batch.ids)]
    names = dict(zip(numbers, batch.ids, strict=True))
    return [[names[number] for number in micro] for micro in batch.members]
