"""Local copies of public data sets: their rows, and the sha256 of what is in them."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from stair_jax.data.sources import read_source
from stair_jax.data.text_files import SourceRows, as_rows, read_text
from stair_jax.data.unpacking import open_unpacked
from stair_jax.storage import reading


def find(folder: Path, files: tuple[str, ...]) -> Path | None:
    """The first of the files that is below a folder, gzipped or not."""
    places = (folder / f"{file}{ending}" for file in files for ending in ("", ".gz"))
    return next((place for place in places if place.is_file()), None)


def read_file(path: Path, columns: Collection[str] = ()) -> SourceRows:
    """The rows of a file; of a text (.txt) one a line, {"prompt": line}.

    Args:
      path: of the file.
      columns: see `data.sources.read_source`.

    Raises:
      UserError: see `data.sources.read_source`.
    """
    if ".txt" not in path.suffixes:
        return read_source(path, columns)
    lines = (line.strip() for line in read_text(path).split("\n"))
    return as_rows(({"prompt": line} for line in lines if line), "line")


def unpacked(path: Path) -> bytes:
    """The bytes of a file, out of gzip or zstd where they are in it.

    Raises:
      UserError: it cannot be read, is damaged, or holds more than a file of its size should.
    """
    with reading(path), open_unpacked(path) as file:
        return file.read()


def content_hash(data: bytes) -> str:
    """SHA-256 (hex) of unpacked bytes, the same for a file and for its gzipped copy."""
    return hashlib.sha256(data).hexdigest()
