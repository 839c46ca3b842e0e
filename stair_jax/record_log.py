"""A crash-safe, append-only log of JSON records, each of them a gzip member of one file."""

import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from stair_jax.errors import UserError
from stair_jax.stopping import heed
from stair_jax.storage import (
    atomic_file,
    check_regular,
    json_line,
    make_folder,
    reading,
    sync_folder,
    writing,
)

_CHUNK = 1 << 15  # bytes per read
_GZIP = 31  # zlib's wbits for the gzip format: 16 + the largest window
_GZIP_MAGIC = b"\x1f\x8b\x08"


class RecordLog:
    """An append-only log of JSON records: a file of gzip members, one per record (`zcat` reads it).

    A record is on disk when `append` returns. Each member carries a checksum, so that an incomplete
    last record, left by a killed writer, is recognised: readers skip it, and the next `append` cuts
    it off. A damaged record before others is an error. Members have no time stamp: the bytes of the
    file depend on the records only. One writer at a time.
    """

    def __init__(self, path: str | Path):
        """A log at `path`; the file is created by the first `append`."""
        self.path = Path(path)
        self._tail_is_whole = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends a record and waits until it is on disk.

        Raises:
          UserError: it cannot be written; the file is then as before.
        """
        self.extend([record])

    def extend(self, records: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
        """Appends records and waits once until all of them are on disk.

        Returns:
          the place of each in the file: its first byte, and the one after its last.

        Raises:
          UserError: they cannot be written; the file is then as before.
        """
        members = [_gzip_member(record) for record in records]
        if not members:
            return []
        with writing(self.path):
            is_new = not self.path.exists()
            make_folder(self.path.parent)
            self._cut_torn_tail()
        with writing(self.path), open(self.path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file.fileno(), b"".join(members))
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        if is_new:
            sync_folder(self.path.parent)
        ends = list(itertools.accumulate(map(len, members), initial=size))
        return list(itertools.pairwise(ends))

    def read(self) -> list[dict[str, Any]]:
        """All complete records, oldest first; [] if there is no file."""
        return list(self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterates over the complete records, oldest first, without loading all of them.

        Raises:
          UserError: a record that others follow is damaged.
        """
        for record, _ in self.members():
            yield record

    def _cut_torn_tail(self) -> None:
        if not self._tail_is_whole and self.path.exists():
            end = max((end for _, end in self.members()), default=0)
            if end < self.path.stat().st_size:
                with writing(self.path):
                    os.truncate(self.path, end)
        self._tail_is_whole = True

    def members(self) -> Iterator[tuple[dict[str, Any], int]]:
        """(record, byte offset of its end) of each complete record.

        Raises:
          UserError: as `__iter__`.
        """
        with reading(self.path):
            if not self.path.exists():
                return
            check_regular(self.path)
        count = end = 0
        with reading(self.path), open(self.path, "rb") as file:
            for text, end in _whole_members(file):
                heed()
                count += 1
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise self._damaged(count) from error
                yield record, end
            file.seek(end)
            # From the second byte on: the first incomplete member itself starts at `end`.
            if _holds_whole_member(file.read()[1:]):
                raise self._damaged(count + 1)

    def at(self, start: int, end: int) -> dict[str, Any]:
        """The record between two places, as `members` or `extend` gave them; reads no other.

        Raises:
          UserError: there is no record: the file was changed meanwhile.
        """
        with reading(self.path):
            check_regular(self.path)
            with open(self.path, "rb") as file:
                file.seek(start)
                member = file.read(end - start)
        try:
            record: dict[str, Any] = json.loads(zlib.decompress(member, _GZIP))
        except (zlib.error, ValueError, RecursionError) as error:
            raise UserError(
                f"{self.path} was changed while it was read: run the same command again"
            ) from error
        return record

    def _damaged(self, number: int) -> UserError:
        return UserError(
            f"{self.path} is damaged at record {number}: "
            "restore the file, or delete the folder of its stage and run again"
        )


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes records atomically, in the form of a `RecordLog`."""
    with atomic_file(path) as file:
        for record in records:
            file.write(_gzip_member(record))


def _gzip_member(record: Mapping[str, Any]) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return compressor.compress(json_line(record)) + compressor.flush()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _whole_members(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(bytes, offset of the end) of each gzip member, up to the first that is not complete."""
    pending, end = b"", 0
    while True:
        decompressor = zlib.decompressobj(_GZIP)
        text, used = [], 0
        while not decompressor.eof:
            pending = pending or file.read(_CHUNK)
            if not pending:
                return
            try:
                text.append(decompressor.decompress(pending))
            except zlib.error:
                return
            used += len(pending) - len(decompressor.unused_data)
            pending = decompressor.unused_data
        end += used
        yield b"".join(text), end


def _holds_whole_member(data: bytes) -> bool:
    """Whether `data` contains a complete gzip member at any offset.

    This tells damage in the middle of a file, which complete records follow, from the incomplete
    last record of a killed writer.
    """
    start = data.find(_GZIP_MAGIC)
    while start >= 0:
        decompressor = zlib.decompressobj(_GZIP)
        with suppress(zlib.error):
            decompressor.decompress(data[start:])
            if decompressor.eof:
                return True
        start = data.find(_GZIP_MAGIC, start + 1)
    return False
