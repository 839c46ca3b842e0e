"""The training loop: steps, and what is saved of them."""

import dataclasses
import importlib.metadata
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.parallel import distributed
from stair_jax.parallel.mesh import use_mesh
from stair_jax.training.batches import Batch, Batches
from stair_jax.training.checkpoints import Checkpoints
from stair_jax.training.feeding import put_batch
from stair_jax.training.keep import Keep
from stair_jax.training.optimizer import Optimizer
from stair_jax.training.preemption import Preemption
from stair_jax.training.step import (
    Objective,
    Params,
    TrainState,
    abstract_state,
    init_state,
    make_train_step,
)
from stair_jax.training.watch import Inspect, Speed, Watch

_PACKAGES = ("stair_jax", "jax", "orbax-checkpoint")


@dataclass(frozen=True)
class Run:
    """What one training run is made of.

    Attributes:
      name: for the lines of progress.
      folder: gets `checkpoints/`, `metrics.jsonl`, `speed.jsonl` and TensorBoard events.
      objective: the loss.
      optimizer: see `make_optimizer`; for `len(batches)` steps.
      batches: one a step; where it has `state(step)`, the position in the data (a flat dict) is
        saved and compared.
      mesh: the devices.
      checkpoint_every: steps between two checkpoints; 0: none by their number.
      shown: names of the metrics shown with the progress.
      checkpoint_minutes: between two checkpoints; 0: none by the clock.
      keep: which checkpoints are kept.
      is_lengthened: the run was finished before, and goes on to more steps: its checkpoint may have
        another schedule, and an order of the data that this one begins with.
    """

    name: str
    folder: Path
    objective: Objective
    optimizer: Optimizer
    batches: Sequence[Batch]
    mesh: Mesh
    checkpoint_every: int = 0
    shown: Iterable[str] = ("loss",)
    checkpoint_minutes: float = 0.0
    keep: Keep = field(default_factory=Keep)
    is_lengthened: bool = False

    @property
    def saves(self) -> bool:
        """Whether there are checkpoints at all."""
        return self.checkpoint_every > 0 or self.checkpoint_minutes > 0


def train(run: Run, params: Params, logical_axes: Params, inspect: Inspect | None = None) -> Params:
    """Trains, from the newest checkpoint if there is one, and returns the parameters.

    A run that was killed and started again ends with the same bits as one that was not. Where
    `run` has checkpoints, SIGTERM makes it finish its step, save, and leave; and the last state
    stays in `checkpoints/`.

    Args:
      run: what to train.
      params: to start from; taken over, so not to be used again.
      logical_axes: PartitionSpecs of logical axis names, a tree like `params`.
      inspect: called with the metrics of each step; may raise.

    Raises:
      UserError: a loss or a gradient is not finite, and `nonfinite.json` says of which examples; a
        checkpoint cannot be written, or was made of other data or settings.
    """
    with (
        Preemption(run.saves) as preemption,
        Checkpoints(run.folder / "checkpoints", run.keep) as checkpoints,
    ):
        state, start = _start(run, params, logical_axes, checkpoints)
        is_main = distributed.is_main()
        progress = Progress(run.name, len(run.batches), "steps", start, silent=not is_main)
        with (
            Metrics(run.folder, resume_step=start - 1, silent=not is_main) as metrics,
            use_mesh(run.mesh),
        ):
            speed = Speed(run.objective, run.mesh)
            watch = Watch(run.folder, metrics, progress, speed, run.shown, run.keep.best, inspect)
            state = _steps(run, state, start, watch, checkpoints, preemption)
        state = _chosen(run, state, checkpoints)
    progress.close()
    return state.params


def _start(
    run: Run, params: Params, logical_axes: Params, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
    """The state to go on from, and the number of its steps."""
    start = checkpoints.step
    if start is None:
        return init_state(params, logical_axes, run.optimizer.tx, run.mesh), 0
    like = abstract_state(params, logical_axes, run.optimizer.tx, run.mesh)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array):
            leaf.delete()  # their room is that of the restored ones
    state, about = checkpoints.restore(like)
    _check_same(run, start, about)
    return state, start


def _steps(
    run: Run,
    state: TrainState,
    start: int,
    watch: Watch,
    checkpoints: Checkpoints,
    preemption: Preemption,
) -> TrainState:
    step_fn = make_train_step(run.objective, run.optimizer.tx, state)
    due = _Due(run)
    if preemption.reached():
        preemption.leave()  # nothing has been done that is not saved
    for step in range(start, len(run.batches)):
        batch = run.batches[step]
        rate = run.optimizer.schedule(step)
        arrays = put_batch(batch.arrays, run.mesh, batch.num_rows)
        learning_rate = put_batch({"rate": np.float32(rate)}, run.mesh)["rate"]
        state, values = step_fn(state, arrays, learning_rate)
        watch.add(step, batch, rate, values)
        checkpoints.check()
        is_last = preemption.reached()
        if due(step + 1) or is_last:
            metrics = watch.flush()  # a state that is not finite is never saved
            about = _about(run, step + 1, metrics)
            checkpoints.save(step + 1, state, about, metrics, wait=is_last)
        if is_last:
            preemption.leave()
    watch.flush()
    return state


def _chosen(run: Run, state: TrainState, checkpoints: Checkpoints) -> TrainState:
    """The last state, or that of the best checkpoint."""
    best = checkpoints.best if run.keep.use_best else None
    if best is None or best == len(run.batches):
        return state
    say(f"{run.name}: the state after step {best} is taken, the best by {run.keep.best}")
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    for leaf in jax.tree.leaves(state):
        leaf.delete()  # their room is that of the restored ones
    return checkpoints.restore(like, best)[0]


class _Due:
    """When to save: every so many steps or minutes, and behind the last step."""

    def __init__(self, run: Run):
        self._run = run
        self._last = time.monotonic()

    def __call__(self, done: int) -> bool:
        """Whether the state after `done` steps is to be saved; the same in all processes."""
        run = self._run
        if not run.saves:
            return False
        is_due = done == len(run.batches)
        if run.checkpoint_every:
            is_due |= done % run.checkpoint_every == 0
        if run.checkpoint_minutes:
            elapsed = time.monotonic() - self._last
            is_due |= distributed.broadcast(elapsed >= 60 * run.checkpoint_minutes)
        if is_due:
            self._last = time.monotonic()
        return is_due


def _about(run: Run, done: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a checkpoint says of itself: step, position in the data, schedule, metrics, versions."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from its folder, never installed
            continue
    return {"step": done, **_same(run, done), "metrics": dict(metrics), "versions": versions}


def _same(run: Run, done: int) -> dict[str, dict[str, Any]]:
    """What has to be the same when the run goes on."""
    position = getattr(run.batches, "state", None)
    return {
        "data": {} if position is None else dict(position(done)),
        "schedule": dataclasses.asdict(run.optimizer.schedule),
    }


def _check_same(run: Run, done: int, about: Mapping[str, Any]) -> None:
    """Raises a UserError that names what has changed since the checkpoint was made."""
    for part, now in _same(run, done).items():
        before = about.get(part) or {}
        for name in sorted({*before, *now}):
            if before.get(name) == now.get(name):
                continue
            if run.is_lengthened and _may_differ(run, part, name, before):
                continue
            raise UserError(
                f"the checkpoint of step {done} in {run.folder / 'checkpoints'} was made with "
                f"another {part} ({name} was {before.get(name)}, now {now.get(name)}): go back "
                "to the data and settings of before, or delete that folder to train anew"
            )


def _may_differ(run: Run, part: str, name: str, before: Mapping[str, Any]) -> bool:
    """Whether a lengthened run may go on from what a checkpoint says of this."""
    if part == "schedule":
        return name in ("num_steps", "warmup_steps")
    if name == "order" and isinstance(run.batches, Batches):
        return run.batches.order_of(before.get("examples", 0)) == before.get("order")
    return name in ("examples", "epoch")  # the last batch of the former run may have been smaller
