"""The training loop: steps, metrics, checkpoints, resuming, preemption."""

import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models.lora import join
from stair_jax.monitoring import Metrics, Progress, say
from stair_jax.parallel.compile_clock import compile_seconds
from stair_jax.parallel.mesh import use_mesh
from stair_jax.parallel.processes import collectives
from stair_jax.stopping import heed
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batch, Batches
from stair_jax.training.checkpoints import Checkpoints
from stair_jax.training.checks import Check
from stair_jax.training.completions import Completions
from stair_jax.training.keep import Keep
from stair_jax.training.metrics import Inspect, StepMetrics, Throughput
from stair_jax.training.optimizer import Optimizer, described
from stair_jax.training.preemption import Preemption
from stair_jax.training.step import (
    Objective,
    Params,
    TrainState,
    abstract_state,
    init_state,
    make_train_step,
)

_PACKAGES = ("stair_jax", "jax", "orbax-checkpoint")


@dataclass(frozen=True)
class TrainingRun:
    """Everything that one training run consists of, except for the parameters.

    Attributes:
      name: for progress lines.
      folder: receives `checkpoints/`, `metrics.jsonl`, `speed.jsonl` and TensorBoard events.
      objective: the loss.
      optimizer: see `make_optimizer`; made for `len(batches)` steps.
      batches: one per step. If it has a method `state(step)`, the position in the data that this
        returns (a flat dict) is saved in checkpoints and compared on resuming.
      mesh: the devices.
      checkpoint_every: steps between two checkpoints; 0: not by steps.
      shown: names of the metrics shown in progress lines.
      checkpoint_minutes: minutes between two checkpoints; 0: not by time.
      keep: which checkpoints are kept.
      checks: what looks at the parameters every so many steps.
      frozen: parameters that the objective sees beside those in training (`models.lora.join`).
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
    checks: Sequence[Check] = ()
    frozen: Params = field(default_factory=dict)
    is_lengthened: bool = False

    @property
    def saves(self) -> bool:
        """Whether the run writes checkpoints."""
        return self.checkpoint_every > 0 or self.checkpoint_minutes > 0


def train(
    run: TrainingRun, params: Params, logical_axes: Params, inspect: Inspect | None = None
) -> Params:
    """Trains from the newest checkpoint, or from `params`, to the end; returns the parameters.

    A run that was killed and started again ends with bitwise the same parameters as one that was
    not. If the run writes checkpoints, SIGTERM makes it finish the current step, save and exit, and
    the final state stays in `checkpoints/`.

    Args:
      run: what to train.
      params: initial parameters; donated.
      logical_axes: pytree like `params` of PartitionSpecs with logical axis names.
      inspect: called with (step, metrics) of each step; may raise to stop the run.

    Raises:
      UserError: a loss or gradient is not finite (`nonfinite.json` names the examples); or a
        checkpoint cannot be written, or was made with other data or settings; or all checkpoints
        are damaged.
    """
    with (
        Preemption(run.saves) as preemption,
        Checkpoints(run.folder / "checkpoints", run.keep) as checkpoints,
    ):
        state, start = _start(run, params, logical_axes, checkpoints)
        is_main = collectives.is_main()
        progress = Progress(
            run.name, len(run.batches), "steps", start, not is_main, compile_seconds
        )
        with (
            Metrics(run.folder, resume_step=start - 1, silent=not is_main) as metrics,
            use_mesh(run.mesh),
            closing(Completions()) as completions,
        ):
            throughput = Throughput(run.objective, run.mesh, completions)
            step_metrics = StepMetrics(
                run.folder, metrics, progress, throughput, run.shown, run.keep.best, inspect
            )
            state = _steps(run, state, start, step_metrics, checkpoints, preemption)
        state = _chosen(run, state, checkpoints)
    progress.close()
    return state.params


def _start(
    run: TrainingRun, params: Params, logical_axes: Params, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
    """The state to start from, and the number of steps that it has done."""
    if checkpoints.step is None:
        return init_state(params, logical_axes, run.optimizer.tx, run.mesh), 0
    like = abstract_state(params, logical_axes, run.optimizer.tx, run.mesh)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array):  # NumPy arrays hold no device memory
            leaf.delete()  # free the memory before the restored arrays are allocated
    state, _ = checkpoints.restore(like, check=partial(_check_same, run))
    start = checkpoints.step  # of the newest that is intact
    assert start is not None
    return state, start


def _steps(
    run: TrainingRun,
    state: TrainState,
    start: int,
    step_metrics: StepMetrics,
    checkpoints: Checkpoints,
    preemption: Preemption,
) -> TrainState:
    step_fn = make_train_step(run.objective, run.optimizer.tx, state)
    due = _Due(run)
    if preemption.reached():
        preemption.leave()  # no step was done yet: the state is that of the checkpoint
    # All processes run this loop in lockstep: what they decide (when to save or stop) must agree.
    for step in range(start, len(run.batches)):
        heed()
        batch = run.batches[step]
        rate = run.optimizer.schedule(step)
        arrays = put_batch(batch.arrays, run.mesh, batch.num_rows)
        # On the mesh, like everything that enters the step: an array on one device would clash.
        learning_rate = put_batch({"rate": np.float32(rate)}, run.mesh)["rate"]
        state, values = step_fn(state, arrays, learning_rate, run.frozen)
        # Reads the metrics of the step before this one, so that the device stays busy.
        step_metrics.add(step, batch, rate, values)
        for check in run.checks:
            if check.is_due(step + 1, len(run.batches)):  # before a save, which it is then part of
                with step_metrics.pause(check.name, step):
                    seen = check.look(step + 1, join(run.frozen, state.params))
                step_metrics.write(step, seen)
        checkpoints.check()
        is_last = preemption.reached()
        if due(step + 1) or is_last:
            # Waits for this step and checks it, so that a non-finite state is never saved.
            metrics = step_metrics.flush()
            about = _about(run, step + 1, metrics)
            with step_metrics.pause("save", step):
                checkpoints.save(step + 1, state, about, metrics, wait=is_last)
        if is_last:
            preemption.leave()
    step_metrics.flush()
    return state


def _chosen(run: TrainingRun, state: TrainState, checkpoints: Checkpoints) -> TrainState:
    """The final state, or that of the best checkpoint if `keep.use_best`."""
    best = checkpoints.best if run.keep.use_best else None
    if best is None or best == len(run.batches):
        return state
    say(f"{run.name}: the state after step {best} is taken, the best by {run.keep.best}")
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    for leaf in jax.tree.leaves(state):
        leaf.delete()  # free the memory before the restored arrays are allocated
    return checkpoints.restore(like, best)[0]


class _Due:
    """When to save: every so many steps or minutes, and after the last step."""

    def __init__(self, run: TrainingRun):
        self._run = run
        self._last = time.monotonic()

    def __call__(self, done: int) -> bool:
        """Whether to save the state after `done` steps; the same answer in all processes."""
        run = self._run
        if not run.saves:
            return False
        is_due = done == len(run.batches)
        if run.checkpoint_every:
            is_due |= done % run.checkpoint_every == 0
        if run.checkpoint_minutes:
            elapsed = time.monotonic() - self._last
            # Clocks differ between processes, but a save is collective: process 0 decides.
            is_due |= collectives.broadcast(elapsed >= 60 * run.checkpoint_minutes)
        if is_due:
            self._last = time.monotonic()
        return is_due


def _about(run: TrainingRun, done: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metadata of a checkpoint: step, position in the data, schedule, metrics, versions."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a clone without installing
            continue
    return {"step": done, **_same(run, done), "metrics": dict(metrics), "versions": versions}


def _same(run: TrainingRun, done: int) -> dict[str, dict[str, Any]]:
    """What is compared when the run is resumed: data, schedule, adapters, frugal optimizer."""
    position = getattr(run.batches, "state", None)
    return {
        "data": {} if position is None else dict(position(done)),
        "schedule": dataclasses.asdict(run.optimizer.schedule),
        "optimizer": described(run.optimizer.tx),
        "lora": _adapters(getattr(run.objective, "config", None)),
    }


def _adapters(config: Any) -> dict[str, Any]:
    """What says which adapters of a model are trained, and beside which base; empty: all of it."""
    adapters, base_weights = (getattr(config, name, None) for name in ("lora", "base_weights"))
    if adapters is None:
        return {}
    about: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(adapters)))
    return about if base_weights == "none" else about | {"base_weights": base_weights}


def _check_same(run: TrainingRun, done: int, about: Mapping[str, Any]) -> None:
    """Raises a UserError that names what has changed since the checkpoint was written."""
    former = (about.get("schedule") or {}).get("num_steps", done)
    if run.is_lengthened and done < former < len(run.batches):
        raise UserError(
            f"the checkpoint of step {done} in {run.folder / 'checkpoints'} is not that of the end "
            f"of the former run, step {former}: only from there can it be lengthened; restore "
            "that one from a copy, or make the stage anew"
        )
    for part, now in _same(run, done).items():
        before = about.get(part) or {}
        for name in sorted({*before, *now}):
            if before.get(name) == now.get(name):
                continue
            if run.is_lengthened and _may_differ(run, part, name, before):
                continue
            raise UserError(
                f"the checkpoint of step {done} in {run.folder / 'checkpoints'} was made with "
                f"another {part} ({name} was {before.get(name)}, now {now.get(name)}): restore "
                "the previous data and settings, or delete that folder to start over"
            )


def _may_differ(run: TrainingRun, part: str, name: str, before: Mapping[str, Any]) -> bool:
    """Whether a difference in this field is allowed because the run has only been lengthened."""
    if part == "schedule":
        return name in ("num_steps", "warmup_steps")
    if name == "order" and isinstance(run.batches, Batches):
        return run.batches.order_of(before.get("examples", 0)) == before.get("order")
    return name in ("examples", "epoch")  # the last batch of the former run may have been smaller
