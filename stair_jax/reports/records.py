"""What is finished of a run: its stages with their records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.run.stage_records import COMPLETE_FILE, read_record
from stair_jax.run.workdir import stage_labels


@dataclass(frozen=True)
class FinishedStage:
    """A stage that is finished.

    Attributes:
      name: of the stage, and of its folder.
      kind: of the stage.
      folder: that holds what it made.
      record: its `complete.json`.
    """

    name: str
    kind: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that what it made depends on."""
        found: Mapping[str, Any] = self.record["settings"]
        return found


@dataclass(frozen=True)
class RunRecords:
    """A run, or one stage of it.

    Attributes:
      folder: of the run.
      stages: that are finished, in their order.
    """

    folder: Path
    stages: tuple[FinishedStage, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name

    def of_kind(self, *kinds: str) -> Iterator[FinishedStage]:
        """The stages of some kinds."""
        return (stage for stage in self.stages if stage.kind in kinds)


def read_run(path: Path) -> RunRecords:
    """The finished stages of a run.

    Args:
      path: its folder, or that of one of its stages.

    Raises:
      UserError: there is no run, or a record is damaged.
    """
    if (path / COMPLETE_FILE).is_file():
        return RunRecords(path.resolve().parent, (_read_stage(path),))
    folders = [path / label.rpartition(":")[2] for label in stage_labels(path)]
    found = [_read_stage(folder) for folder in folders if (folder / COMPLETE_FILE).is_file()]
    return RunRecords(path, tuple(found))


def _read_stage(folder: Path) -> FinishedStage:
    record = read_record(folder / COMPLETE_FILE)
    return FinishedStage(record["name"], record["kind"], folder, record)
