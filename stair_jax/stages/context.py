"""What a stage is given to work with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig


@dataclass(frozen=True)
class StageContext:
    """One stage of a run.

    Attributes:
      name: name of the stage in this run, and of its folder.
      settings: `config[kind]`, updated with `config[name]`.
      runtime: `config.runtime`: what changes the cost of the stage, never its results.
      seed: the seed of the run.
      folder: `workdir/name`; the stage writes there and nowhere else.
      inputs: for each field in the stage's `INPUTS`, the folder of the stage that the field
        names, or a list of folders where it holds several names; an empty field has no entry.
    """

    name: str
    settings: FrozenConfigDict
    runtime: FrozenConfigDict
    seed: int
    folder: Path
    inputs: Mapping[str, Path | list[Path]]

    def input(self, field: str) -> Path:
        """The folder of the one stage that `field` names."""
        folder = self.inputs[field]
        assert isinstance(folder, Path), f"{field} of stage {self.name} names several stages"
        return folder

    def input_list(self, field: str) -> list[Path]:
        """The folders of the stages that `field` names, also where it names one or none."""
        folders = self.inputs.get(field, [])
        return [folders] if isinstance(folders, Path) else list(folders)


@dataclass(frozen=True)
class PlanContext:
    """One stage of a run that is planned: nothing is read or written.

    Attributes:
      name: name of the stage in this run.
      settings: `config[kind]`, updated with `config[name]`.
      runtime: `config.runtime`.
      devices: what its steps are compiled for; may be of a machine that is not there.
      models: for each field in the stage's `INPUTS`, the models of the stages that it names, as
        their checkpoints say; stages without a model are left out.
    """

    name: str
    settings: FrozenConfigDict
    runtime: FrozenConfigDict
    devices: Sequence[jax.Device]
    models: Mapping[str, Sequence[ModelConfig]]

    def model(self, field: str) -> ModelConfig:
        """The model of the one stage that `field` names.

        Raises:
          UserError: the field is empty, or that stage has no model.
        """
        if not self.models.get(field):
            raise UserError(f"{field} is empty or names a stage without a model")
        return self.models[field][0]
