"""Training metrics: logging, throughput and MFU, detection of non-finite losses."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError, did_you_mean
from stair_jax.models import flops
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.parallel import compile_clock
from stair_jax.parallel.chips import device_chip
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json
from stair_jax.training.batches import Batch
from stair_jax.training.checks import Seen
from stair_jax.training.completions import Completions
from stair_jax.training.objectives import PrmObjective
from stair_jax.training.step import Objective

Inspect = Callable[[int, Mapping[str, float]], None]

NONFINITE_FILE = "nonfinite.json"
_WINDOW = 1.0  # seconds of steps that a rate is measured over, at least


@dataclass(frozen=True)
class _Pending:
    """A step that is dispatched and not read."""

    step: int
    batch: Batch
    learning_rate: float
    values: Mapping[str, jax.Array]
    completed: "Future[float]"
    compiled: float


@dataclass(frozen=True)
class _Timed:
    """A step that was measured."""

    seconds: float
    tokens: int
    flops: float


class StepMetrics:
    """Logs the metrics of each step, one step late, so that the device never waits for the host.

    `metrics.jsonl` receives the metrics of the step (loss, grad_norm, those of the objective),
    learning_rate, tokens, and padding (share of positions without a token). `speed.jsonl` receives
    seconds, tokens_per_second and mfu (see `Throughput`) of the steps alone, and beside them what
    else took time: compile_seconds, and those of each pause, such as save_seconds.
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
        self._pending: _Pending | None = None
        self._compiled = throughput.compile_seconds()

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
        compiled = self._compiled_since()
        completed = self._throughput.watch(values)
        self.flush()
        self._pending = _Pending(step, batch, learning_rate, values, completed, compiled)

    def flush(self) -> dict[str, float]:
        """Waits for the pending step, checks and logs its metrics, and returns them.

        Returns {} if no step is pending.
        """
        if self._pending is None:
            return {}
        pending, self._pending = self._pending, None  # before anything can raise: logged once
        step, batch = pending.step, pending.batch
        values = {name: float(value) for name, value in jax.device_get(pending.values).items()}
        is_first = not self._throughput.has_started
        clock = self._throughput.measure(batch, pending.completed.result(), pending.compiled)
        self._check(step, batch, values)  # before it is logged
        if self._inspect is not None:
            self._inspect(step, values)
        values |= {
            "learning_rate": pending.learning_rate,
            "tokens": batch.num_tokens,
            "padding": 1 - batch.num_tokens / batch.num_positions,
        }
        self._metrics.write(step, values, clock)
        if is_first:  # it has compiled, and loaded what no later one loads
            self._progress.rate_from_here(step + 1)
        shown: dict[str, Any] = {name: values[name] for name in self._shown}
        shown |= {name: clock[name] for name in ("mfu",) if name in clock}
        self._progress.update(step + 1, **shown)
        return values

    @contextmanager
    def pause(self, name: str, step: int) -> Iterator[None]:
        """What is done inside is no part of the steps' time, but `NAME_seconds` of `speed.jsonl`.

        Waits for the pending step, so that the devices are idle at the start.

        Args:
          name: of what is done, such as "save".
          step: the last one before.
        """
        self.flush()
        start = self._throughput.clock()
        self._compiled_since()
        yield
        seconds, compiled = self._throughput.resume() - start, self._compiled_since()
        clock = {f"{name}_seconds": max(0.0, seconds - compiled)}
        if compiled > 0:
            clock["compile_seconds"] = compiled
        self._metrics.write(step, {}, clock)
        self._progress.leave_out(clock[f"{name}_seconds"])

    def write(self, step: int, seen: Seen) -> None:
        """Writes what a check has found after a step, and says its metrics."""
        self._metrics.write(step, seen.values)
        self._metrics.write_samples(step, seen.samples)
        shown = [
            f"{name} {value:.4g}"
            for name, value in seen.values.items()
            if name.rpartition("/")[2] in self._shown
        ]
        if shown:
            say(f"{self._folder.name}: step {step}: {', '.join(shown)}")

    def _compiled_since(self) -> float:
        """Seconds of compilation since this was last asked."""
        before, self._compiled = self._compiled, self._throughput.compile_seconds()
        return self._compiled - before

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
    """Step time, throughput and model FLOPs utilisation (MFU), of the devices' own steps.

    A step's time is from the completion of the one before, or from the end of a pause (`resume`),
    to its own completion, as `Completions` sees them. It includes what the devices wait for the
    next batch. Steps that compile, of which the first of a process is one, have no time.
    """

    def __init__(
        self,
        objective: Objective,
        mesh: Mesh,
        completions: Completions,
        compile_seconds: Callable[[], float] = compile_clock.compile_seconds,
    ):
        """The clock starts at the end of the first step.

        Args:
          objective: of the run; without an attribute `config`, there is no MFU.
          mesh: the devices, all of one kind.
          completions: tells when steps are done.
          compile_seconds: seconds of compilation so far.
        """
        self._config = getattr(objective, "config", None)
        self._head = not isinstance(objective, PrmObjective)
        peak = device_chip(mesh.devices.flat[0]).flops
        self._peak = None if peak is None else peak * mesh.devices.size
        self._completions, self.compile_seconds = completions, compile_seconds
        self._last: float | None = None
        self._window: deque[_Timed] = deque()

    @property
    def has_started(self) -> bool:
        """Whether a step was measured."""
        return self._last is not None

    def clock(self) -> float:
        """Seconds, on the clock of the completions."""
        return self._completions.clock()

    def watch(self, values: Any) -> "Future[float]":
        """See `Completions.watch`."""
        return self._completions.watch(values)

    def resume(self) -> float:
        """Ends a pause: what was before is no part of the next step's time. Returns the time."""
        now = self.clock()
        if self._last is not None:
            self._last = now
        return now

    def measure(self, batch: Batch, completed: float, compiled: float = 0.0) -> dict[str, float]:
        """What is known of the speed of the step that has just been read.

        Args:
          batch: of the step.
          completed: when the devices were done with it.
          compiled: seconds of compilation at its dispatch.

        Returns:
          "seconds" of the step. "tokens_per_second" (padding excluded) and "mfu":
          `micro_training_flops` per second as a fraction of the devices' peak, both of the latest
          steps that took a second together, so that what the thread is late counts little; absent
          until there are as many. "mfu" is absent too if FLOPs or peak are not known.
          "compile_seconds" of a step that compiled, which has nothing else.
        """
        before, self._last = self._last, completed
        if compiled > 0:
            return {"compile_seconds": compiled}
        if before is None or completed <= before:
            return {}
        has_flops = self._config is not None and self._peak is not None
        flops_done = self._flops(batch) if has_flops else 0.0
        self._window.append(_Timed(completed - before, batch.num_tokens, flops_done))
        found = {"seconds": completed - before}
        seconds = sum(step.seconds for step in self._window)
        while seconds - self._window[0].seconds >= _WINDOW:
            seconds -= self._window.popleft().seconds
        if seconds < _WINDOW:
            return found
        found["tokens_per_second"] = sum(step.tokens for step in self._window) / seconds
        if self._peak is not None and has_flops:
            found["mfu"] = sum(step.flops for step in self._window) / (seconds * self._peak)
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
