"""What a stage is given to work with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from stair_jax.errors import UserError
from stair_jax.run.runtime import Runtime

if TYPE_CHECKING:
    from stair_jax.models.config import ModelConfig


@dataclass(frozen=True)
class StageContext:
    """One stage of a run.

    Attributes:
      name: name of the stage in this run, and of its folder.
      runtime: devices and sizes: what changes the cost of the stage, never its results.
      seed: the seed of the run.
      folder: `workdir/name`; the stage writes there and nowhere else.
      inputs: for each field that names earlier stages, their folders: one, or a list where the
        field holds several names; an empty field has no entry.
      fingerprint: of the artifact that the stage makes.
      is_lengthened: the stage was finished before, and goes on to a new length.
    """

    name: str
    runtime: Runtime
    seed: int
    folder: Path
    inputs: Mapping[str, Path | list[Path]]
    fingerprint: str = ""
    is_lengthened: bool = False

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
    """One stage of a run that is planned or checked: nothing is read or written.

    Attributes:
      name: name of the stage in this run.
      runtime: devices and sizes, as the config has them.
      devices: that train; they may be of a machine that is not there.
      decoding_devices: that decode: where the run has several processes, those of one.
      models: for each field that names earlier stages, the models that these hand on; stages
        without a model are left out.
      bases: for each field that names a stage whose model is adapters, the stage of their base.
    """

    name: str
    runtime: Runtime
    devices: Sequence[jax.Device]
    decoding_devices: Sequence[jax.Device]
    models: "Mapping[str, Sequence[ModelConfig]]"
    bases: Mapping[str, str] = field(default_factory=dict)

    def model(self, field: str) -> "ModelConfig":
        """The model of the one stage that `field` names.

        Raises:
          UserError: the field is empty, or that stage has no model.
        """
        if not self.models.get(field):
            raise UserError(f"{field} is empty or names a stage without a model")
        return self.models[field][0]
