"""An archive of what later analysis of a study needs, in parts that can be carried one by one."""

import argparse
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from stair_jax import storage
from stair_jax.adapter_folders import CONFIG_FILE
from stair_jax.commands.flags import listed
from stair_jax.errors import UserError, did_you_mean
from stair_jax.monitoring import say
from stair_jax.run.stage_records import COMPLETE_FILE, Record, read_record

WHAT = ("tables", "adapters", "trees", "runs")
_TABLES = (".md", ".json", ".jsonl", ".csv", ".log")  # ends of names; answers, pairs, metrics too
_LEFT_OUT = ("checkpoints", "shards", "figures")  # folders, beside the hidden ones
_MEGABYTE = 10**6


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax study` about archives."""
    parser.add_argument(
        "--pack",
        metavar="FILE.tar.xz",
        help="write an archive of what is there alone: FILE.tar.xz.000, .001, ...; "
        "`cat FILE.tar.xz.* | tar xJ` unpacks it",
    )
    parser.add_argument(
        "--what",
        metavar="LIST",
        default="tables",
        help=f"of the archive, of {', '.join(WHAT)}; default tables: answers, verdicts, pairs, "
        "metrics, records and logs too; runs: all that is needed to go on elsewhere, where whole "
        "models and copies of data are made again",
    )
    parser.add_argument(
        "--part-megabytes",
        metavar="N",
        type=float,
        default=15.0,
        help="most megabytes of a part of the archive; default 15",
    )


def execute(options: argparse.Namespace, workdir: Path) -> None:
    """Writes the archive that the flags describe.

    Raises:
      UserError: a flag is wrong, there is nothing to pack, or it cannot be written.
    """
    what = listed([options.what])
    for name in what:
        if name not in WHAT:
            raise UserError(f"--what={name}: there is no such thing: {did_you_mean(name, WHAT)}")
    if not options.pack.endswith(".tar.xz"):
        raise UserError(f"--pack={options.pack}: the name has to end in .tar.xz")
    if options.part_megabytes <= 0:
        raise UserError("--part-megabytes must be above 0")
    files = sorted({path for name in what for path in _files(workdir, name)}, key=_records_first)
    if not files:
        raise UserError(f"{workdir} holds nothing of: {', '.join(what)}")
    path = Path(options.pack).expanduser()
    for old in path.parent.glob(f"{path.name}.[0-9][0-9][0-9]"):
        with storage.writing(old):
            old.unlink()
    parts = _Parts(path, int(options.part_megabytes * _MEGABYTE))
    # The fastest preset: hundreds of megabytes of text, while a lent host waits.
    with (
        storage.writing(path),
        parts,
        lzma.LZMAFile(cast(IO[bytes], parts), "wb", preset=1) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        packed = sum(_add(archive, file, workdir) for file in files)
    say(f"{packed} files in {parts.count} parts: {path}.000 ...")


def _add(archive: tarfile.TarFile, file: Path, workdir: Path) -> bool:
    """Adds a file as it is now; False: it has gone, as runs go on meanwhile."""
    try:
        with open(file, "rb") as source:
            info = archive.gettarinfo(arcname=file.relative_to(workdir).as_posix(), fileobj=source)
            content = None if info.islnk() else io.BytesIO(source.read())
    except FileNotFoundError:
        return False
    if content is not None:
        info.size = content.getbuffer().nbytes  # it may have grown since
    archive.addfile(info, content)
    return True


def _records_first(path: Path) -> tuple[bool, Path]:
    """Records, tables and choices before answers and pairs: they stay where an archive breaks."""
    return path.suffix not in (".json", ".md"), path


def _files(workdir: Path, what: str) -> Iterator[Path]:
    """The files of one kind, without hidden ones, and without copies of the user's data.

    Of `runs`, a stage with a whole model has none: another host makes it again.
    """
    for where, below, names in os.walk(workdir):
        below[:] = [name for name in below if not name.startswith(".") and name not in _LEFT_OUT]
        folder = Path(where)
        record = _record(folder)
        if record.get("kind") == "files" or (what == "runs" and _is_whole_model(folder)):
            below.clear()
            continue
        for name in names:
            if not name.startswith(".") and _is_of(what, folder / name):
                yield folder / name
        if what == "runs":
            yield from (folder / name for name in record.get("files", ()))


def _record(folder: Path) -> Record:
    """Of a finished stage; empty, where the folder is of none."""
    try:
        return read_record(folder / COMPLETE_FILE)
    except UserError:
        return {}


def _is_whole_model(folder: Path) -> bool:
    model = folder / "hf"
    return model.is_dir() and not (model / CONFIG_FILE).exists()


def _is_of(what: str, file: Path) -> bool:
    is_model = file.parent.name == "hf"
    if what == "adapters":
        return is_model and (file.parent / CONFIG_FILE).exists()
    if what == "trees":
        return file.name == "trees.jsonl.gz"
    return not is_model and file.suffix in _TABLES


class _Parts(io.RawIOBase):
    """A stream that is written into files of a size at most: PATH.000, PATH.001, ..."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._left = path, size, 0
        self._file: io.BufferedWriter | None = None
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = memoryview(data)  # type: ignore[arg-type]
        done = 0
        while done < len(block):
            if not self._left:
                self._next()
            piece = block[done : done + self._left]
            assert self._file is not None
            self._file.write(piece)
            done += len(piece)
            self._left -= len(piece)
        return done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _next(self) -> None:
        if self._file is not None:
            self._file.close()
        storage.make_folder(self._path.parent)
        self._file = open(f"{self._path}.{self.count:03d}", "wb")  # noqa: SIM115 (see close)
        self._left, self.count = self._size, self.count + 1
