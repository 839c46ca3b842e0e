"""Repair of a file of search trees that a killed writer or a bad disk left damaged.

The trees that it lost are searched again, and come out the same; what was lost is said.
"""

import json
import mmap
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from stair_jax.storage import atomic_file, check_regular, reading, writing

_MAGIC = b"\x1f\x8b\x08"  # the first bytes of a gzip member
_WBITS = 31  # zlib's number for the gzip format
_CHUNK = 1 << 16  # bytes


def repair(path: Path) -> str:
    """Takes out of a file of trees (a `RecordLog`) what is damaged, before it is gone on with.

    An incomplete last record, which is what a killed writer leaves, is cut off. If more is damaged,
    the file is copied to `NAME.damaged`, and replaced by one of its whole records.

    Returns:
      what was dropped, in words; "" if nothing was.

    Raises:
      UserError: the file cannot be read or written.
    """
    with reading(path):
        if not path.exists():
            return ""
        check_regular(path)
        size = path.stat().st_size
        if not size:
            return "it is empty"
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            spans = list(_records(data))
            end = sum(end - start for start, end in spans)
            if end == size:
                return ""
            is_cut_only = end == max((end for _, end in spans), default=0)  # no gap before
            if is_cut_only and _is_incomplete(data, end):
                with writing(path):
                    os.truncate(path, end)
                return f"its last record was incomplete ({size - end} bytes)"
            aside = _free_name(path)
            with writing(aside):
                shutil.copyfile(path, aside)
            with atomic_file(path) as new:
                for start, stop in spans:
                    new.write(data[start:stop])
    return (
        f"it was damaged: {size - end} of its {size} bytes are no whole record; "
        f"{len(spans)} whole ones were kept, and the file as it was is {aside.name}"
    )


def _records(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """(start, end) of each gzip member that holds a record, wherever it stands."""
    place = 0
    while (start := data.find(_MAGIC, place)) >= 0:
        text, end = _decompress(data, start)
        if end and _is_record(text):
            yield start, end
        place = end or start + 1


def _decompress(data: mmap.mmap, start: int) -> tuple[bytes, int]:
    """(text, end) of the gzip member at `start`; the end is 0 if it is damaged or incomplete."""
    decompressor = zlib.decompressobj(_WBITS)
    text, place = [], start
    while not decompressor.eof and place < len(data):
        chunk = data[place : place + _CHUNK]
        try:
            text.append(decompressor.decompress(chunk))
        except zlib.error:
            return b"", 0
        place += len(chunk) - len(decompressor.unused_data)
    return b"".join(text), place if decompressor.eof else 0


def _is_record(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text)["id"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_incomplete(data: mmap.mmap, start: int) -> bool:
    """Whether the rest is the first part of a gzip member."""
    try:
        zlib.decompressobj(_WBITS).decompress(data[start:])
    except zlib.error:
        return False
    return True


def _free_name(path: Path) -> Path:
    names = [path.with_name(f"{path.name}.damaged")]
    while names[-1].exists():
        names.append(path.with_name(f"{path.name}.damaged{len(names) + 1}"))
    return names[-1]
