"""Files that are compressed by gzip or zstd, unpacked part by part and up to a limit.

A few kilobytes can unpack to more than any machine has. What a data file holds is at most some ten
times as large as its compressed form; above `most_bytes` it is refused.
"""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stair_jax.errors import UserError

ENDINGS = (".gz", ".zst", ".zstd")
_ALWAYS = 256 * 2**20  # bytes that any file may have
_MOST_TIMES = 200  # its size, above that
_CHUNK = 2**20
_ZSTD_CHUNK = 2**8  # compressed bytes: four of them may stand for a block of 128 KiB


def most_bytes(size: int) -> int:
    """How many bytes a file of this size may unpack to."""
    return max(_ALWAYS, _MOST_TIMES * size)


def check_size(size: int, limit: int, path: Path) -> None:
    """Raises a UserError if the content of a file is larger than its limit."""
    if size > limit:
        raise UserError(
            f"{path} unpacks to more than {limit} bytes, which no file of its size should: unpack "
            "it yourself, and name what was in it"
        )


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a file for reading, as its bytes were before gzip or zstd; others as they are.

    Reading from it raises a UserError where the file is damaged or holds more than `most_bytes`.

    Raises:
      OSError: it cannot be opened.
    """
    file = _open(path)
    mark = file.peek()  # a pipe cannot be rewound
    for start, (name, parts) in _FORMATS.items():
        if mark.startswith(start):
            limit = most_bytes(os.fstat(file.fileno()).st_size)
            return io.BufferedReader(_Unpacked(file, _checked(parts(file), limit, path, name)))
    return file


def _open(path: Path) -> io.BufferedReader:
    return open(path, "rb")


class _Unpacked(io.RawIOBase):
    """The parts of a file, as a stream that closes the file with itself."""

    def __init__(self, file: BinaryIO, parts: Iterator[bytes]):
        """A stream of what is in `file`, that `parts` gives."""
        self._file, self._parts, self._rest = file, parts, memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the front of a buffer; 0: there is no more."""
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        """Closes the file too."""
        self._file.close()
        super().close()


def _checked(parts: Iterator[bytes], limit: int, path: Path, name: str) -> Iterator[bytes]:
    size = 0
    try:
        for part in parts:
            size += len(part)
            check_size(size, limit, path)
            yield part
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged {name} file ({error}): copy it again") from error


def _gzip_parts(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from iter(lambda: unpacked.read(_CHUNK), b"")


def _zstd_parts(file: BinaryIO) -> Iterator[bytes]:
    """The parts of all frames, which may follow one another.

    Raises:
      OSError: the data are damaged.
      EOFError: they end within a frame.
    """
    import zstandard

    unpacker = zstandard.ZstdDecompressor()
    frame = unpacker.decompressobj()
    is_within = False
    try:
        for rest in iter(lambda: file.read(_ZSTD_CHUNK), b""):
            while rest:
                if not is_within:
                    frame = unpacker.decompressobj()
                yield frame.decompress(rest)
                is_within, rest = not frame.eof, frame.unused_data
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    if is_within:
        raise EOFError("it ends too early")


_FORMATS: dict[bytes, tuple[str, Callable[[BinaryIO], Iterator[bytes]]]] = {
    b"\x1f\x8b": ("gzip", _gzip_parts),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd_parts),
}
