"""Hashes of a checkpoint's files: written once it is complete, compared before it is used.

Each process hashes the files that it wrote, while they are in the cache of its own machine; one
process alone would read the whole state again over the network. SHA-256, since processors have
instructions for it: 1.1 GB/s a thread, where blake2b of the same Python did 0.3 and CRC-32 1.4.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.storage import fingerprint_file, read_json, write_json

_FILE = "hashes.process_{}.json"
_WRITER = re.compile(r"(?:.*\.)?process_(\d+)")  # Orbax's names of what one process writes
_SMALL = 1 << 16  # bytes
_SEEN_AFTER = 60.0  # seconds until a folder renamed on one machine is seen on another
_PATIENCE = 3600.0  # seconds in which all processes have hashed their parts
# Half of the processors: a save goes on beside training. More than 8 would wait for the disk.
_THREADS = max(1, min(8, (os.cpu_count() or 1) // 2))


@dataclass(frozen=True)
class Verdict:
    """What the hashes of a checkpoint say of its files.

    Attributes:
      problem: the first file that is damaged, in words; "": none is.
      unchecked: why not every file could be checked, in words; "": all were.
    """

    problem: str = ""
    unchecked: str = ""


class Hasher:
    """Hashes checkpoints in a thread of its own, each as soon as its save is complete."""

    def __init__(self) -> None:
        """Nothing is hashed yet."""
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, folder: Path, complete: Callable[[], None]) -> None:
        """Starts the thread for a checkpoint.

        Args:
          folder: of the checkpoint, once it is complete.
          complete: waits until it is; raises if its save fails, which is told elsewhere.
        """
        self.wait()
        # A daemon: a process that is stopped does not wait for hashes. Without them the checkpoint
        # is as good, and is said to be unchecked.
        self._thread = threading.Thread(target=self._run, args=(folder, complete), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises the error of hashing, if there was one; does not wait."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits until the hashes are written.

        Raises:
          UserError: a file that was just written cannot be read, or the hashes cannot be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, folder: Path, complete: Callable[[], None]) -> None:
        try:
            complete()
        except Exception:
            return
        try:
            deadline = time.monotonic() + _SEEN_AFTER
            while not folder.is_dir() and time.monotonic() < deadline:
                time.sleep(0.1)
            if folder.is_dir():
                write(folder)
        except Exception as error:
            self._error = error


def write(folder: Path) -> None:
    """Writes the hashes of the files of a complete checkpoint that this process wrote.

    Raises:
      UserError: a file cannot be read, or the hashes cannot be written.
    """
    own, count = collectives.process_index(), collectives.num_processes()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    names = [name for name in names if _writer(name, count) == own and not _is_ours(name)]
    hashes = _hashed(folder, names)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": hashes[name]} for name in names
    }
    write_json(folder / _FILE.format(own), {"processes": count, "files": files})


def exist(folder: Path) -> bool:
    """Whether a checkpoint has hashes: it was complete then, whatever it lacks now."""
    return any(folder.glob(_FILE.format("*")))


def glance(folder: Path) -> str:
    """What is wrong with the files of a checkpoint, by their sizes and the hashes of small ones.

    Returns:
      the first problem in words; "" if there is none, also where there are no hashes.
    """
    try:
        files, _ = _read(folder)
    except _Damaged as error:
        return str(error)
    small = [name for name, file in files.items() if file["bytes"] <= _SMALL]
    return _resized(folder, files) or _changed(folder, files, small)


def lacks_files(folder: Path) -> bool:
    """Whether a file of a checkpoint is gone: it was being deleted, or somebody deleted it."""
    with suppress(_Damaged):
        return not all((folder / name).is_file() for name in _read(folder)[0])
    return False


def check(folder: Path) -> Verdict:
    """Compares all files of a checkpoint with their hashes; all processes call it together.

    Each hashes a part of the files.
    """
    try:
        files, unchecked = _read(folder)
        part = sorted(files)[collectives.process_index() :: collectives.num_processes()]
        problem = _resized(folder, files) or _changed(folder, files, part)
    except _Damaged as error:
        problem, unchecked = str(error), ""
    told = collectives.gather(f"the check of {folder}", [problem, unchecked], _PATIENCE)
    worst = [max(column, key=bool) for column in zip(*told, strict=True)]
    return Verdict(*collectives.broadcast(worst))


class _Damaged(Exception):
    """The hashes themselves are damaged."""


def _read(folder: Path) -> tuple[dict[str, Mapping[str, Any]], str]:
    """(by name, size and hash of all files; why they are not all)."""
    paths = sorted(folder.glob(_FILE.format("*")))
    files: dict[str, Mapping[str, Any]] = {}
    count = 0
    for path in paths:
        try:
            record = read_json(path)
            count = record["processes"]
            for name, file in record["files"].items():
                files[name] = {"bytes": int(file["bytes"]), "sha256": str(file["sha256"])}
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Damaged(f"{path.name} is damaged") from error
    if not paths:
        return files, "it has no hashes"
    return files, "" if len(paths) == count else f"it has hashes of {len(paths)} of {count} parts"


def _resized(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    for name, file in sorted(files.items()):
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {error}"
        if size != file["bytes"]:
            return f"{name} has {size} bytes and had {file['bytes']}"
    return ""


def _changed(folder: Path, files: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    try:
        found = _hashed(folder, names)
    except UserError as error:
        return str(error)
    changed = [name for name, sha in found.items() if sha != files[name]["sha256"]]
    return f"{changed[0]} is not as it was written" if changed else ""


def _hashed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files by name; hashing runs without the interpreter's lock, so threads help."""
    names = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = (folder / name for name in names)
        return dict(zip(names, pool.map(fingerprint_file, paths), strict=True))


def _writer(name: str, count: int) -> int:
    """The process that hashes a file: the one that wrote it, else the first."""
    for part in name.split("/"):
        match = _WRITER.fullmatch(part)
        if match and int(match[1]) < count:
            return int(match[1])
    return 0


def _is_ours(name: str) -> bool:
    """Whether a file of a checkpoint is one of hashes, also one that is being written."""
    return name.startswith((".", _FILE.partition("{")[0]))
