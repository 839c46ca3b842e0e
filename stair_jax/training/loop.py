"""The training loop: steps, progress, metrics, checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics, Progress
from stair_jax.parallel.mesh import use_mesh
from stair_jax.parallel.rules import replicated
from stair_jax.training.batches import Batch
from stair_jax.training.checkpoints import Checkpoints
from stair_jax.training.optimizer import Optimizer
from stair_jax.training.step import (
    Objective,
    Params,
    TrainState,
    init_state,
    make_train_step,
    put_batch,
)

Inspect = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Run:
    """What one training run is made of.

    Attributes:
      name: for the lines of progress.
      folder: gets `checkpoints/`, `metrics.jsonl` and TensorBoard events.
      objective: the loss.
      optimizer: see `make_optimizer`; for `len(batches)` steps.
      batches: one a step.
      mesh: the devices.
      checkpoint_every: steps between two checkpoints; 0: none.
      shown: names of the metrics shown with the progress.
    """

    name: str
    folder: Path
    objective: Objective
    optimizer: Optimizer
    batches: Sequence[Batch]
    mesh: Mesh
    checkpoint_every: int = 0
    shown: Iterable[str] = ("loss",)


def train(run: Run, params: Params, logical_axes: Params, inspect: Inspect | None = None) -> Params:
    """Trains, from the newest checkpoint if there is one, and returns the parameters.

    A run that was killed and started again ends with the same bits as one that was not. The last
    state stays in `checkpoints/` where `checkpoint_every` is not 0.

    Args:
      run: what to train.
      params: to start from; taken over, so not to be used again.
      logical_axes: PartitionSpecs of logical axis names, a tree like `params`.
      inspect: called with the metrics of each step; may raise.

    Raises:
      UserError: a loss or a gradient is not finite; names the step and its examples.
    """
    checkpoints = Checkpoints(run.folder / "checkpoints")
    state = init_state(params, logical_axes, run.optimizer.tx, run.mesh)
    start = checkpoints.step or 0
    if start:
        state = checkpoints.restore(state)
    progress = Progress(run.name, len(run.batches), "steps", start)
    try:
        with Metrics(run.folder, resume_step=start - 1) as metrics, use_mesh(run.mesh):
            watch = _Watch(run, metrics, progress, inspect)
            state = _steps(run, state, start, watch, checkpoints)
    finally:
        checkpoints.close()
    progress.close()
    return state.params


def _steps(
    run: Run, state: TrainState, start: int, watch: "_Watch", checkpoints: Checkpoints
) -> TrainState:
    step_fn = make_train_step(run.objective, run.optimizer.tx, state)
    scalar = replicated(run.mesh)
    for step in range(start, len(run.batches)):
        batch = run.batches[step]
        rate = run.optimizer.schedule(step)
        learning_rate = jax.device_put(np.float32(rate), scalar)
        state, values = step_fn(state, put_batch(batch.arrays, run.mesh), learning_rate)
        watch.add(step, batch, rate, values)
        done = step + 1
        if run.checkpoint_every and (done % run.checkpoint_every == 0 or done == len(run.batches)):
            watch.flush()  # a state that is not finite is never saved
            checkpoints.save(done, state)
    watch.flush()
    return state


class _Watch:
    """Reads the metrics of a step when the next one is under way: the device never waits."""

    def __init__(self, run: Run, metrics: Metrics, progress: Progress, inspect: Inspect | None):
        self._run, self._metrics, self._progress, self._inspect = run, metrics, progress, inspect
        self._pending: tuple[int, Batch, float, Mapping[str, jax.Array]] | None = None

    def add(
        self, step: int, batch: Batch, learning_rate: float, values: Mapping[str, jax.Array]
    ) -> None:
        """Takes the metrics of a step just started, and reads those of the one before."""
        self.flush()
        self._pending = (step, batch, learning_rate, values)

    def flush(self) -> None:
        """Reads, checks and writes what is pending; waits for its step."""
        if self._pending is None:
            return
        step, batch, learning_rate, pending = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(pending).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise UserError(
                    f"{name} is {values[name]} at step {step} (examples {', '.join(batch.ids)}): "
                    "lower learning_rate, or check these examples"
                )
        if self._inspect is not None:
            self._inspect(step, values)
        self._metrics.write(
            step, {**values, "learning_rate": learning_rate, "tokens": batch.num_tokens}
        )
        self._progress.update(step + 1, **{name: values[name] for name in self._run.shown})
