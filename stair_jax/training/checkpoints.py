"""Checkpoints of a training run, through Orbax: written beside the steps, whole or not at all."""

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
from stair_jax.parallel import distributed
from stair_jax.storage import write_json, writing
from stair_jax.training.keep import BEST_FILE, Keep

_STATE, _ABOUT = "state", "about"
_STEP = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")  # a save under way, or left by a killed run
_WHOLE = ("_CHECKPOINT_METADATA", f"{_STATE}/_METADATA", f"{_ABOUT}/metadata")


class Checkpoints:
    """The checkpoints of a run, in a folder; all processes of the run make the same calls.

    A checkpoint holds the state after a number of steps, and a JSON value about it. It is written
    by threads of its own: the steps behind it go on meanwhile, and may take over its arrays. It
    gets its name when all of it is on the disk, and those that it replaces are deleted then, so
    that a save that fails or is cut short leaves the ones before it.

    As a context manager it waits at the end for what is being written.
    """

    def __init__(self, folder: str | Path, keep: Keep = Keep()):
        """Opens `folder`, which is made when it is not there; removes what is not whole.

        Raises:
          UserError: the folder cannot be written.
        """
        logging.getLogger("absl").addFilter(_is_for_users)
        self._folder = Path(folder).absolute()
        self._keep = keep
        self._pending: int | None = None  # the step that is being written
        with writing(self._folder):
            if distributed.is_main():
                self._prepare()
            distributed.barrier(f"opening {self._folder}")
            self._manager = _Manager(self._folder, options=_options(keep))

    @property
    def step(self) -> int | None:
        """Number of steps done in the newest checkpoint; None when there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Steps done in the best of the checkpoints that are written; None where none is kept."""
        self.wait()
        return self._manager.best_step() if self._keep.best else None

    @property
    def steps(self) -> list[int]:
        """Of all checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: Any,
        about: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Begins to save the state after `step` steps; waits for a save that is still under way.

        Args:
          step: steps done; nothing is saved anew that is there already.
          state: arrays; they may be donated when this returns.
          about: a JSON value that is saved beside.
          metrics: of this step, `Keep.best` among them.
          wait: whether to return only when all is on the disk.

        Raises:
          UserError: this or the save before it cannot be written.
        """
        with self._writes():
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
                self._manager.save(step, args=items, metrics=best or None, force=True)
                self._pending = step
        if wait:
            self.wait()

    def check(self) -> None:
        """Raises the error of a save that has failed since; never waits."""
        if self._pending is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: it cannot be written.
        """
        with self._writes():
            self._pending = None
            self._manager.wait_until_finished()

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """A state, with the shapes, types and shardings of `like`, and what is beside it.

        The devices may be others, and more or fewer, than those that saved it.

        Args:
          like: arrays, or shapes of them.
          step: of the checkpoint; None: the newest one.

        Raises:
          UserError: the checkpoint is damaged, or of another model.
        """
        step = self.step if step is None else step
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            **{_STATE: ocp.args.StandardRestore(abstract), _ABOUT: ocp.args.JsonRestore()}
        )
        try:
            restored = self._manager.restore(step, args=items)
        except (ValueError, OSError, KeyError) as error:
            raise UserError(
                f"the checkpoint in {self._folder / str(step)} cannot be read: delete that folder "
                "to go on from the one before it, or else train anew"
            ) from error
        return restored[_STATE], restored[_ABOUT]

    def close(self) -> None:
        """Waits for the save under way, and ends the threads of Orbax."""
        with self._writes():
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        try:  # what went wrong first is what the user has to know
            self.close()
        except Exception as second:
            say(f"{self._folder}: the last checkpoint was not written: {second}")

    def _prepare(self) -> None:
        """Removes folders that a killed run left half-written or half-deleted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if _STEP.fullmatch(path.name) and not _is_whole(path):
                # Orbax passes over what has no number as its name: it may stay.
                shutil.rmtree(path, ignore_errors=not path.name.isdigit())
        if self._keep.best:
            write_json(self._folder / BEST_FILE, {"metric": self._keep.best})

    def _probe(self) -> None:
        """Makes a folder as a save would, whose threads would wait minutes for one that fails."""
        if distributed.is_main():
            probe = self._folder / ".probe"
            probe.mkdir(exist_ok=True)
            probe.rmdir()

    def _names(self) -> tuple[str, ...]:
        return (self._keep.best,) if self._keep.best else ()

    def _writes(self) -> Any:
        return writing(self._folder)


class _Manager(ocp.CheckpointManager):
    """Orbax's, which asks on its own, from a thread and about steps long done, for preemption.

    Each such question counts as the step that this process is at; see preemption.py.
    """

    def reached_preemption(self, step: int) -> bool:
        """Nobody but the loop asks."""
        return False


def _is_for_users(record: logging.LogRecord) -> bool:
    """Leaves out the tracebacks of Orbax's threads: their errors are raised by `check`."""
    return "orbax" not in Path(record.pathname).parts


def _is_whole(folder: Path) -> bool:
    """Whether a save came to its end: it has its name, and the small files that come last.

    The name comes last of all, by a rename; but a folder may have been copied, or a machine may
    have lost its power.
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
            reverse=lowest,
            n=keep.num_best,
            keep_checkpoints_without_metrics=False,
        )
    )
    return ocp.CheckpointManagerOptions(
        best_fn=value,
        best_mode="min" if lowest else "max",
        preservation_policy=policies.AnyPreservationPolicy(kept),
    )
