"""Training checkpoints through Orbax: asynchronous and atomic, keeping the newest and the best."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json, writing
from stair_jax.training.keep import BEST_FILE, Keep

_STATE, _ABOUT = "state", "about"
_STEP = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")  # a checkpoint, or an unfinished save of one
# Small files that Orbax writes at the end of a save: of the checkpoint and of its two items.
_WHOLE = ("_CHECKPOINT_METADATA", f"{_STATE}/_METADATA", f"{_ABOUT}/metadata")


class Checkpoints:
    """The checkpoints of a run in one folder. All processes of the run make the same calls.

    A checkpoint holds the training state after a number of steps and a JSON value. Saving is
    asynchronous: Orbax copies the state to the host and writes it from background threads, while
    training goes on and may donate the arrays. A checkpoint gets its final name only when it is
    complete on disk, and only then are older ones deleted, so that a failed or interrupted save
    leaves the previous checkpoint intact.

    As a context manager it waits at the end for the save in progress.
    """

    def __init__(self, folder: str | Path, keep: Keep = Keep()):
        """Opens or creates `folder`, and removes incomplete checkpoints from it.

        Raises:
          UserError: the folder cannot be written.
        """
        logging.getLogger("absl").addFilter(_is_for_users)
        self._folder = Path(folder).absolute()
        self._keep = keep
        self._pending: int | None = None  # the step that is being written
        with writing(self._folder):
            if collectives.is_main():
                self._prepare()
            # No process may list the folder before process 0 has cleaned it up.
            collectives.barrier(f"opening {self._folder}")
            self._manager = _Manager(self._folder, options=_options(keep))

    @property
    def step(self) -> int | None:
        """Number of training steps of the newest checkpoint; None if there is no checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Number of steps of the best checkpoint; None if none is kept by a metric.

        Waits for the save in progress, which may be the best one.
        """
        self.wait()
        return self._manager.best_step() if self._keep.best else None

    @property
    def steps(self) -> list[int]:
        """Numbers of steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: Any,
        about: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Starts saving the state after `step` steps, once the previous save is complete.

        Args:
          step: number of steps done. A checkpoint that exists already is not written again.
          state: pytree of arrays; they may be donated as soon as this returns.
          about: a JSON value that is saved with it.
          metrics: of this step; has to contain `Keep.best`, if that is set.
          wait: return only when the checkpoint is on disk.

        Raises:
          UserError: this save or the previous one cannot be written.
        """
        with self._writes():
            # One save at a time: each holds a copy of the state in host memory.
            self._manager.wait_until_finished()
            self._pending = None
            if step not in self._manager.all_steps():
                self._probe()
                items = ocp.args.Composite(
                    **{
                        _STATE: ocp.args.StandardSave(state),
                        _ABOUT: ocp.args.JsonSave(dict(about)),
                    }
                )
                best = None if metrics is None else {name: metrics[name] for name in self._names()}
                # force: when to save is decided by the loop, not by Orbax's save interval.
                self._manager.save(step, args=items, metrics=best or None, force=True)
                self._pending = step
        if wait:
            self.wait()

    def check(self) -> None:
        """Raises the error of a save that has failed in the background; does not wait."""
        if self._pending is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save in progress, if any.

        Raises:
          UserError: it cannot be written.
        """
        with self._writes():
            self._pending = None
            self._manager.wait_until_finished()

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """(state, about) of a checkpoint, resharded to `like`.

        The number of devices and processes may differ from those that saved it.

        Args:
          like: pytree of arrays or `ShapeDtypeStruct`s: shapes, dtypes and shardings to restore to.
          step: of the checkpoint; None: the newest.

        Raises:
          UserError: the checkpoint is damaged or belongs to another model.
        """
        step = self.step if step is None else step
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            **{_STATE: ocp.args.StandardRestore(abstract), _ABOUT: ocp.args.JsonRestore()}
        )
        try:
            restored = self._manager.restore(step, args=items)
        except (ValueError, OSError, KeyError) as error:  # Orbax has no class for damaged files
            raise UserError(
                f"the checkpoint in {self._folder / str(step)} cannot be read: delete that folder "
                "to resume from the previous checkpoint, or start over"
            ) from error
        return restored[_STATE], restored[_ABOUT]

    def close(self) -> None:
        """Waits for the save in progress and stops Orbax's threads."""
        with self._writes():
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        try:  # a second error must not hide the first, which is being raised
            self.close()
        except Exception as second:
            say(f"{self._folder}: the last checkpoint was not written: {second}")

    def _prepare(self) -> None:
        """Removes checkpoints that a killed run left half written or half deleted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if _STEP.fullmatch(path.name) and not _is_whole(path):
                # An error matters only for a plain number, which Orbax would take for a checkpoint.
                shutil.rmtree(path, ignore_errors=not path.name.isdigit())
        if self._keep.best:
            write_json(self._folder / BEST_FILE, {"metric": self._keep.best})

    def _probe(self) -> None:
        """Creates a folder as a save would, to find an unwritable disk at once.

        If a background save fails on this, the exit of the process is delayed by minutes.
        """
        if collectives.is_main():
            probe = self._folder / ".probe"
            probe.mkdir(exist_ok=True)
            probe.rmdir()

    def _names(self) -> tuple[str, ...]:
        return (self._keep.best,) if self._keep.best else ()

    def _writes(self) -> Any:
        return writing(self._folder)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its own preemption check.

    It would call JAX's `reached_preemption_sync_point` from a thread, for steps long done. JAX
    takes each such call as the current step of the process, which would break the agreement on a
    common last step that `preemption.py` relies on.
    """

    def reached_preemption(self, step: int) -> bool:
        """Always False: only the training loop asks."""
        return False


def _is_for_users(record: logging.LogRecord) -> bool:
    """Log filter for tracebacks of Orbax's threads, whose errors `check` raises anyway."""
    return "orbax" not in Path(record.pathname).parts


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint is complete: it has its final name and the files that are written last.

    The rename to the final name is the last step of a save. The name alone is not enough, though: a
    folder may have been copied in part, or the machine may have lost power before the data was on
    disk.
    """
    try:
        found = [json.loads((folder / name).read_bytes()) for name in _WHOLE]
    except (OSError, ValueError):
        return False
    return folder.name.isdigit() and bool(found[0].get("commit_timestamp_nsecs"))


def _options(keep: Keep) -> ocp.CheckpointManagerOptions:
    kept: list[policies.PreservationPolicy] = [policies.LatestN(keep.newest)]
    if not keep.best:
        return ocp.CheckpointManagerOptions(preservation_policy=kept[0])

    def value(metrics: Mapping[str, float]) -> float:
        return metrics[keep.best]

    lowest = keep.best.endswith(("loss", "norm"))
    kept.append(
        policies.BestN(
            get_metric_fn=value,
            reverse=lowest,  # BestN ranks ascending, the best last
            n=keep.num_best,
            keep_checkpoints_without_metrics=False,
        )
    )
    return ocp.CheckpointManagerOptions(
        best_fn=value,
        best_mode="min" if lowest else "max",
        preservation_policy=policies.AnyPreservationPolicy(kept),
    )
