"""Folders that a worker cannot read, carried to it through Ray's object store file by file."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.closing import Closing
from stair_jax.storage import make_folder, reading, writing


class AbsentFolders(Exception):
    """Folders that a worker needs are not there.

    Attributes:
      folders: as the driver has them.
    """

    def __init__(self, folders: Sequence[Path]):
        """Names the folders."""
        super().__init__(", ".join(map(str, folders)))
        self.folders = list(folders)


@dataclass(frozen=True)
class CarriedFolder:
    """A folder in the object store.

    Attributes:
      folder: as the driver has it.
      files: a reference to the bytes of each file, by its relative path.
    """

    folder: Path
    files: Mapping[str, Any]


def carry(folder: Path, put: Callable[[bytes], Any]) -> CarriedFolder:
    """Puts the files of a folder, one after another, where `put` says."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with reading(path):
            files[path.relative_to(folder).as_posix()] = put(path.read_bytes())
    return CarriedFolder(folder, files)


class Unpacked(Closing):
    """Copies of carried folders on this machine.

    Attributes:
      places: of the copies, by the folders of the driver.
    """

    def __init__(self, carried: Sequence[CarriedFolder], get: Callable[[Any], bytes]):
        """Writes the copies, side by side as the folders are, so that adapters find their base."""
        self._root = tempfile.TemporaryDirectory(prefix="stair_jax-")
        self.places: dict[Path, Path] = {}
        for each in carried:
            place = Path(self._root.name) / each.folder.relative_to(each.folder.anchor)
            for name, reference in each.files.items():
                make_folder((place / name).parent)
                with writing(place / name):
                    (place / name).write_bytes(get(reference))
            self.places[each.folder] = place

    def close(self) -> None:
        """Deletes the copies."""
        self._root.cleanup()
