"""What a stage is given to work with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_collections import FrozenConfigDict


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
