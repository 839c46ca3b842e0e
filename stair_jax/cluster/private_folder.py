"""A folder for Ray's sockets and logs that other users of the machine cannot enter."""

import shutil
import tempfile
from pathlib import Path

from stair_jax.closing import Closing

_ROOT = "/tmp"  # not $TMPDIR: the name of a socket in it may have 107 characters


class PrivateFolder(Closing):
    """A folder for the time of a cluster; Ray opens its own folder to all users.

    Attributes:
      inside: what Ray may have.
    """

    def __init__(self) -> None:
        """Makes the folder, for its owner alone."""
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir=_ROOT))
        self.inside = self._folder / "r"
        self.inside.mkdir()

    def close(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
