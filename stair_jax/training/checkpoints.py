"""Training checkpoints through Orbax: asynchronous and atomic, keeping the newest and the best."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.parallel.processes import collectives
from stair_jax.storage import write_json, writing
from stair_jax.training import hashes
from stair_jax.training.keep import BEST_FILE, Keep

_STATE, _ABOUT = "state", "about"
_STEP = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")  # a checkpoint, or an unfinished save of one
_NOT_OF_FILES = (UserError, MemoryError, jax.errors.JaxRuntimeError)
# Small files that Orbax writes at the end of a save: of the checkpoint and of its two items.
_WHOLE = ("_CHECKPOINT_METADATA", f"{_STATE}/_METADATA", f"{_ABOUT}/metadata")


class Checkpoints:
    """The checkpoints of a run in one folder. All processes of the run make the same calls.

    A checkpoint holds the training state after a number of steps and a JSON value. Saving is
    asynchronous: Orbax copies the state to the host and writes it from background threads, while
    training goes on and may donate the arrays. A checkpoint gets its final name only when it is
    complete on disk, and only then are older ones deleted, so that a failed or interrupted save
    leaves the previous checkpoint intact. Then its files are hashed, in a thread too (`hashes.py`);
    a checkpoint that differs from its hashes is never used.

    As a context manager it waits at the end for the save in progress.
    """

    def __init__(self, folder: str | Path, keep: Keep = Keep()):
        """Opens or creates `folder`, and removes incomplete checkpoints from it.

        Raises:
          UserError: the folder cannot be written; or a checkpoint is seen to be damaged that no
            other can replace.
        """
        logging.getLogger("absl").addFilter(_is_for_users)
        self._folder = Path(folder).absolute()
        self._keep = keep
        self._pending: int | None = None  # the step that is being written
        self._hasher = hashes.Hasher()
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
            # One save at a time: each holds a copy of the state in host memory. Its end deletes
            # older checkpoints, whose files must not be in the middle of being hashed then.
            self._wait()
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
                self._hasher.start(self._path(step), self._manager.wait_until_finished)
        if wait:
            self.wait()

    def check(self) -> None:
        """Raises the error of a save that has failed in the background; does not wait."""
        with self._writes():
            if self._pending is not None and not self._manager.is_saving_in_progress():
                self._pending = None
                self._manager.wait_until_finished()
            self._hasher.check()

    def wait(self) -> None:
        """Waits for the save in progress, if any, and until its files are hashed.

        Raises:
          UserError: it cannot be written.
        """
        with self._writes():
            self._wait()

    def _wait(self) -> None:
        self._pending = None
        self._manager.wait_until_finished()
        self._hasher.wait()

    def restore(
        self,
        like: Any,
        step: int | None = None,
        check: Callable[[int, Mapping[str, Any]], None] = lambda step, about: None,
    ) -> tuple[Any, dict[str, Any]]:
        """(state, about) of a checkpoint, resharded to `like`.

        The number of devices and processes may differ from those that saved it. Where the newest
        one is damaged, it is renamed to `STEP.damaged`, and the one before is used.

        Args:
          like: pytree of arrays or `ShapeDtypeStruct`s: shapes, dtypes and shardings to restore to.
          step: of the checkpoint; None: the newest that is intact, which `step` then names.
          check: called with (step, about) before the state is read; may raise a UserError.

        Raises:
          UserError: all are damaged, or the one asked for, or it belongs to another model.
        """
        damaged: dict[int, str] = {}
        for number in self.steps[::-1] if step is None else [step]:
            try:
                restored = self._restore(like, number, check)
            except _Damaged as error:
                damaged[number] = str(error)
                continue
            self._set_aside(damaged, number)
            return restored
        newest, reason = next(iter(damaged.items()))
        raise UserError(self._lost(newest, reason))

    def _restore(
        self, like: Any, step: int, check: Callable[[int, Mapping[str, Any]], None]
    ) -> tuple[Any, dict[str, Any]]:
        verdict = hashes.check(self._path(step))
        if verdict.problem:
            raise _Damaged(verdict.problem)
        if verdict.unchecked:
            say(f"{self._path(step)} cannot be checked for damage: {verdict.unchecked}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)

        def read(name: str, item: ocp.args.CheckpointArgs) -> Any:
            return self._manager.restore(step, args=ocp.args.Composite(**{name: item}))[name]

        try:
            about = read(_ABOUT, ocp.args.JsonRestore())
            check(step, about)
            return read(_STATE, ocp.args.StandardRestore(abstract)), about
        except _NOT_OF_FILES:
            raise
        except Exception as error:  # for a damaged file, Orbax raises this very class
            # If it fails, processes may be left in the middle of it: only a single one can try
            # another checkpoint.
            if verdict.unchecked and collectives.num_processes() == 1:
                raise _Damaged("it cannot be read") from error
            if not verdict.unchecked and not isinstance(error, ValueError | KeyError | TypeError):
                raise
            raise UserError(
                f"the checkpoint in {self._path(step)} cannot be read: it is damaged, or of "
                "another model; delete that folder to resume from the previous checkpoint, or "
                "start over"
            ) from error

    def _set_aside(self, damaged: Mapping[int, str], used: int) -> None:
        """Takes damaged checkpoints out of the way of later saves of the same steps."""
        if not damaged:
            return
        with self._writes():
            if collectives.is_main():
                for step, reason in damaged.items():
                    _rename_damaged(self._path(step), reason)
            say(f"{self._folder}: going on from the checkpoint of step {used}")
            collectives.barrier(f"setting damaged checkpoints of {self._folder} aside")
            self._manager.reload()

    def _lost(self, step: int, reason: str) -> str:
        """What is said of a damaged checkpoint in whose place no other can be used."""
        if self._keep.best and sum(path.name.isdigit() for path in self._folder.iterdir()) > 1:
            then = f"delete {self._path(step)}, and the best of the others is used"
        else:
            then = f"delete {self._folder} to start over"
        return (
            f"the checkpoint in {self._path(step)} is damaged ({reason}), and no other can take "
            f"its place: restore it from a copy, or {then}"
        )

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def close(self) -> None:
        """Waits for the save in progress and stops Orbax's threads."""
        with self._writes():
            self._manager.close()
            self._hasher.wait()

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
            has_hashes = path.name.isdigit() and hashes.exist(path)
            if _STEP.fullmatch(path.name) and not (_is_whole(path) or has_hashes):
                _remove(path)
        self._set_aside_unopenable()
        if self._keep.best:
            write_json(self._folder / BEST_FILE, {"metric": self._keep.best})

    def _set_aside_unopenable(self) -> None:
        """Takes damaged checkpoints away that Orbax could not even open; large files come later."""
        steps = [int(path.name) for path in self._folder.iterdir() if path.name.isdigit()]
        damaged = {step: reason for step in steps if (reason := hashes.glance(self._path(step)))}
        intact = max(set(steps) - set(damaged), default=-1)
        for step, reason in sorted(damaged.items(), reverse=True):
            if step < intact and hashes.lacks_files(self._path(step)):
                _remove(self._path(step))  # a run was killed while it deleted an older checkpoint
            elif intact < 0 or (step < intact and self._keep.best):
                raise UserError(self._lost(step, reason))
            else:
                _rename_damaged(self._path(step), reason)

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


class _Damaged(Exception):
    """A checkpoint is damaged; the message says how."""


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


def _remove(folder: Path) -> None:
    """Deletes what is left of a save or of a deletion that was cut short."""
    is_seen = folder.name.isdigit()  # Orbax would take it for a checkpoint; else no error matters
    if is_seen:
        say(f"{folder} is not a whole checkpoint, and is deleted")
    shutil.rmtree(folder, ignore_errors=not is_seen)


def _rename_damaged(folder: Path, reason: str) -> None:
    """Renames a damaged checkpoint, in place of an earlier one of the same step, and says so."""
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    say(f"the checkpoint in {folder} is damaged ({reason}): it is kept as {aside.name}")


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
