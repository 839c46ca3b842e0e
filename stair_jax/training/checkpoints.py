"""Checkpoints of a training run, through Orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from stair_jax.errors import UserError
from stair_jax.storage import writing


class Checkpoints:
    """The newest checkpoint of a run, in a folder.

    A checkpoint holds the state after a number of steps; the position in the data follows from that
    number. A save that was cut short leaves the one before it.
    """

    def __init__(self, folder: str | Path):
        """Opens `folder`, which is made when it is not there."""
        self._folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        with writing(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def step(self) -> int | None:
        """Number of steps done in the newest checkpoint; None when there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Saves the state after `step` steps, and returns when it is on the disk."""
        with writing(self._folder):
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, like: Any) -> Any:
        """The newest state, with the shapes, types and shardings of `like`.

        Raises:
          UserError: the checkpoint is damaged, or of another model.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(self.step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, OSError, KeyError) as error:
            raise UserError(
                f"the checkpoint in {self._folder} cannot be read: delete that folder to train anew"
            ) from error

    def close(self) -> None:
        """Ends the threads of Orbax."""
        self._manager.close()
