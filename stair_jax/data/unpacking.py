"""Files that are compressed by gzip or zstd, unpacked in memory up to a limit.

A few kilobytes can unpack to more than any machine has. What a data file holds is at most some ten
times as large as its compressed form; above `most_bytes` it is refused.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from stair_jax.errors import UserError

ENDINGS = (".gz", ".zst", ".zstd")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ALWAYS = 256 * 2**20  # bytes that any file may have
_MOST_TIMES = 200  # its size, above that
_CHUNK = 2**20
_ZSTD_CHUNK = 2**8  # compressed bytes: four of them may stand for a block of 128 KiB


def most_bytes(size: int) -> int:
    """How many bytes a file of this size may unpack to."""
    return max(_ALWAYS, _MOST_TIMES * size)


def unpacked(data: bytes, path: Path) -> bytes:
    """The bytes of a file as they were before gzip or zstd; others as they are.

    Raises:
      UserError: they are damaged, or are more than `most_bytes`.
    """
    for start, (name, parts) in _READERS.items():
        if data.startswith(start):
            return _joined(parts(data), most_bytes(len(data)), path, name)
    return data


def check_size(size: int, limit: int, path: Path) -> None:
    """Raises a UserError if the content of a file is larger than its limit."""
    if size > limit:
        raise UserError(
            f"{path} unpacks to more than {limit} bytes, which no file of its size should: unpack "
            "it yourself, and name what was in it"
        )


def _joined(parts: Iterator[bytes], limit: int, path: Path, name: str) -> bytes:
    found, size = [], 0
    try:
        for part in parts:
            size += len(part)
            check_size(size, limit, path)
            found.append(part)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged {name} file ({error}): copy it again") from error
    return b"".join(found)


def _gzip_parts(data: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _zstd_parts(data: bytes) -> Iterator[bytes]:
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
        for start in range(0, len(data), _ZSTD_CHUNK):
            rest = data[start : start + _ZSTD_CHUNK]
            while rest:
                if not is_within:
                    frame = unpacker.decompressobj()
                yield frame.decompress(rest)
                is_within, rest = not frame.eof, frame.unused_data
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    if is_within:
        raise EOFError("it ends too early")


_READERS: dict[bytes, tuple[str, Callable[[bytes], Iterator[bytes]]]] = {
    _GZIP: ("gzip", _gzip_parts),
    _ZSTD: ("zstd", _zstd_parts),
}
