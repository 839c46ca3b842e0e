"""The benchmarks' own files as `stair-jax evaluate --data` finds them."""

import csv
import io
from collections.abc import Iterator

from stair_jax.data.study import local
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.public_set import PublicSet
from stair_jax.data.study.sources import Sources
from stair_jax.data.unpacking import ENDINGS
from stair_jax.storage import json_line


def benchmark_files(sources: Sources) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the files of all sets that are for tuning or reporting and are there.

    Local copies and downloaded files keep their bytes, unpacked; rows of a hub are written in the
    form that the official file's name says.
    """
    for name, one in SETS.items():
        if one.role == "training" or name not in sources.found:
            continue
        path = sources.file(name)
        if path is None:
            yield from (sources.downloads(name) or {one.files[0]: _written(one, sources)}).items()
            continue
        folder = one.files[0].partition("/")[0]
        beside = (found for pattern in one.beside for found in sorted(path.parent.glob(pattern)))
        for file in dict.fromkeys((path, *beside)):
            below = file.relative_to(path.parent)
            below = below.with_suffix("") if below.suffix in ENDINGS else below
            yield f"{folder}/{below.as_posix()}", local.unpacked(file)


def _written(one: PublicSet, sources: Sources) -> bytes:
    """The rows of a set as its official file would have them: CSV, else JSON lines."""
    rows = sources.rows(one.name)
    if not one.files[0].endswith(".csv"):
        return b"".join(map(json_line, rows))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
