"""Fingerprints of the user's files that an artifact was made of, so that an edited one is noticed.

The content decides, but is read once: `.sources.json` in the working folder remembers the hash of
each file with its size and times, as git's index does. A file as young as its hash is not
remembered, since a second edit could leave size and times as they are. So a local checkpoint is
hashed when a run with it first starts, a few files at a time, and not at all when the run is
continued. Of a checkpoint in the cache of the Hugging Face hub the commit stands for the content,
which the hub stores by its hash: nothing is read.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.models.huggingface import hub
from stair_jax.monitoring import say
from stair_jax.run.stage import Stage

_FILE = ".sources.json"
_SETTLED = 2 * 10**9  # nanoseconds; the coarsest time stamps (FAT) are of 2 seconds
_MUCH = 2**30  # bytes whose hashing is announced
_AT_ONCE = 4  # files; hashing lets other threads run


class SourceHashes:
    """The fingerprints of sources, with the cache of a working folder."""

    def __init__(self, workdir: Path):
        """The cache is read now, and written when something was hashed."""
        self._path = workdir / _FILE
        self._known: dict[str, list[object]] = {}
        if self._path.is_file():
            try:
                read = storage.read_json(self._path)
            except UserError:
                read = None  # a cache that is damaged is none
            self._known = read if isinstance(read, dict) else {}

    def of(self, stage: Stage) -> dict[str, str]:
        """A fingerprint for each source of a stage that is there, by its name.

        Raises:
          UserError: a file cannot be read.
        """
        found = {}
        for name, files in stage.sources().items():
            if isinstance(files, str):
                found[name] = files
            elif files:
                found[name] = self._of_files(name, files)
        return found

    def of_checkpoint(self, init: str) -> str:
        """A fingerprint of a checkpoint: of a folder's files, or the commit of an id of the hub.

        Raises:
          UserError: a file cannot be read.
        """
        content = hub.source_files(init)
        if content is None or isinstance(content, str):
            return content or ""
        return self._of_files(init, content)

    def _of_files(self, name: str, files: Sequence[Path]) -> str:
        stats = {path: _stat(path) for path in files}
        new = [path for path in files if self._known.get(_key(path), [])[:-1] != stats[path]]
        size = sum(int(stats[path][0]) for path in new)
        if size >= _MUCH:
            say(f"{name}: {size / _MUCH:.1f} GiB are hashed, once")
        hashes = {path: str(self._known[_key(path)][-1]) for path in files if path not in new}
        settled = time.time_ns() - _SETTLED
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            hashes |= dict(zip(new, pool.map(storage.fingerprint_file, new), strict=True))
        for path in new:
            if max(stats[path][1:]) < settled:
                self._known[_key(path)] = [*stats[path], hashes[path]]
        if new:
            self._save()
        return joined_hash({path: hashes[path] for path in files})

    def _save(self) -> None:
        if self._path.parent.is_dir():
            storage.write_json(self._path, self._known)


def joined_hash(hashes: Mapping[Path, str]) -> str:
    """One fingerprint of several files, of which each has its own."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    base = os.path.commonpath([path.parent for path in hashes])
    return storage.fingerprint({os.path.relpath(path, base): own for path, own in hashes.items()})


def borrow_hashes(workdir: Path, others: Sequence[Path]) -> None:
    """Lets a new working folder know what another one has hashed; sizes and times still decide."""
    known = next((each / _FILE for each in others if (each / _FILE).is_file()), None)
    if known is not None and not (workdir / _FILE).exists():
        with suppress(UserError):  # a cache that is damaged, or cannot be kept, is none
            storage.write_json(workdir / _FILE, storage.read_json(known))


def _key(path: Path) -> str:
    return str(path.absolute())


def _stat(path: Path) -> list[int]:
    """Size, time of the last change of the content, and of anything (nanoseconds)."""
    try:
        about = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def changed_source(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The first source with another content; one that is not there any more counts as the same."""
    names = (name for name in before if now.get(name, before[name]) != before[name])
    return next(names, None)
