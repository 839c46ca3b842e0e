"""Readers of data files, of `datasets` folders, and of data sets on the Hugging Face hub.

Text files are read with the standard library (`text_files.py`), Parquet and Arrow with pyarrow
(`tables.py`). The rest goes through `datasets`, which takes seconds to import and is therefore
imported only here and when needed; it neither runs code of a data set nor reads pickles.
"""

import glob
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from stair_jax.data.tables import ARROW, PARQUET, read_arrow, read_parquet
from stair_jax.data.text_files import (
    Place,
    SourceRows,
    Unreadable,
    as_rows,
    read_csv,
    read_json_file,
    read_json_line_parts,
    read_json_lines,
    read_tsv,
)
from stair_jax.data.unpacking import ENDINGS
from stair_jax.errors import UserError

_HUB_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(:(?P<config>[\w.-]+)(/(?P<split>[\w.-]+))?)?"
    r"(@(?P<revision>[\w./-]+))?"
)
_SPLIT = "train"
_WILDCARDS = re.compile(r"[*?\[]")
_PART = 10_000  # rows


def read_source(source: str | Path, columns: Collection[str] = ()) -> SourceRows:
    """Reads the rows of a data set, unconverted.

    Args:
      source: a file: `.json` (a list of objects, or JSON lines), `.csv`, `.tsv`, `.parquet`,
        `.arrow`, `.feather` or `.ipc`, or JSON lines with any other name; all but tables may be
        compressed by gzip or zstd, with `.gz` or `.zst` behind their name or without. A pattern
        such as `data/part-*.jsonl`: its files, by name. A folder written by `save_to_disk`; or, if
        there is no such path, a data set on the hub, `owner/name`, `owner/name:config` or
        `owner/name:config/split`, of a commit, branch or tag with `@revision` behind it. If there
        are several splits and none is named, "train" is read.
      columns: of tables, of a folder and of the hub, those that are taken into memory, as far as
        they are there; (): all.

    Raises:
      UserError: the source does not exist or cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, columns)
    if found := _hub_id(source):
        return _read_hub(**found.groupdict(), columns=columns)
    if is_pattern(source):
        return _read_all(_matching(source), columns)
    if read := _TABLES.get(path.suffix.lower()):
        return read(path, columns)
    return _READERS.get(ending(path), read_json_lines)(path)


def read_parts(source: str | Path) -> Iterator[SourceRows]:
    """The rows of `read_source`, in one part or more, of which one at a time is in memory.

    JSON lines come in parts; of other formats there is one part, with all rows.

    Raises:
      UserError: as `read_source`, when the part is reached that cannot be read.
    """
    path = Path(source).expanduser()
    if is_pattern(source):
        for each in _matching(source):
            yield from (_within(each, part) for part in read_parts(each))
    elif path.is_file() and ending(path) not in (*_READERS, *_TABLES):
        yield from read_json_line_parts(path, _PART)
    else:
        yield read_source(source)


def source_name(source: str | Path) -> str:
    """A short name: of a file without folders and endings, of a hub id without its owner."""
    found = _hub_id(source)
    path = found["name"] if found else str(source)
    return Path(path).name.partition(".")[0]


def check_source(source: str | Path) -> None:
    """Checks that a source is an existing file or folder, a pattern of some, or like a hub id.

    Does not access the hub.

    Raises:
      UserError: it is none of these.
    """
    if is_pattern(source):
        _matching(source)
    elif not Path(source).expanduser().exists() and not _hub_id(source):
        raise UserError(f"there is no file {source}")


def source_files(source: str | Path) -> list[Path]:
    """The files that a source is made of, as far as they are there; [] for a hub id."""
    path = Path(source).expanduser()
    if is_pattern(source):
        return _matching(source)
    if not path.is_dir():
        return [path] if path.is_file() else []
    files = (file for file in path.rglob("*") if file.suffix in (".arrow", ".json"))
    return sorted(file for file in files if file.is_file())


def is_saved(folder: Path) -> bool:
    """Whether a folder is one of datasets' `save_to_disk`."""
    return any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))


def _hub_id(source: str | Path) -> re.Match[str] | None:
    """The parts of the id of a data set on the hub; None if the source is a path."""
    named = Path(str(source).partition("@")[0])
    if Path(source).expanduser().exists() or named.suffix in _FILES:
        return None
    return _HUB_ID.fullmatch(str(source))


def ending(path: Path) -> str:
    """The last ending of a file's name, in front of `.gz` or `.zst`; in lower case."""
    return Path(path.stem if path.suffix.lower() in ENDINGS else path).suffix.lower()


def is_pattern(source: str | Path) -> bool:
    """Whether a source is a pattern, and no file of that name."""
    return bool(_WILDCARDS.search(str(source))) and not Path(source).expanduser().exists()


def _matching(pattern: str | Path) -> list[Path]:
    """The files of a pattern, by name; `**` stands for any folders."""
    found = glob.glob(str(Path(pattern).expanduser()), recursive=True)
    files = [path for path in map(Path, sorted(found)) if path.is_file()]
    if not files:
        raise UserError(f"there is no file {pattern}: nothing matches this pattern")
    return files


def _read_all(paths: Sequence[Path], columns: Collection[str]) -> SourceRows:
    """The rows of files one after another, each with its file in its place."""
    every = SourceRows()
    for path in paths:
        found = _within(path, read_source(path, columns))
        every.rows += found.rows
        every.unreadable += found.unreadable
    return every


def _within(path: Path, found: SourceRows) -> SourceRows:
    """Rows of a file, with the file in their places."""
    rows = [Place(f"{path}, {place}", row) for place, row in found.rows]
    return SourceRows(
        rows, [Unreadable(f"{path}, {place}", reason) for place, reason in found.unreadable]
    )


def _read_folder(path: Path, columns: Collection[str]) -> SourceRows:
    if not is_saved(path):
        raise UserError(f"{path} is a folder, but not of datasets' save_to_disk: name a file in it")
    return _through_datasets(
        lambda datasets: datasets.load_from_disk(str(path)), str(path), _SPLIT, columns
    )


def _read_hub(
    name: str,
    config: str | None,
    split: str | None,
    revision: str | None,
    columns: Collection[str],
) -> SourceRows:
    return _through_datasets(
        lambda datasets: datasets.load_dataset(name, config, revision=revision),
        name,
        split or _SPLIT,
        columns,
        " (which is no file here)",
    )


_READERS: dict[str, Callable[[Path], SourceRows]] = {
    ".json": read_json_file,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
_TABLES = {PARQUET: read_parquet} | dict.fromkeys(ARROW, read_arrow)
_FILES = (*_READERS, *_TABLES, *ENDINGS, ".jsonl")  # endings of what is never a hub id


def _through_datasets(
    read: Callable[[Any], Any], source: str, split: str, columns: Collection[str], note: str = ""
) -> SourceRows:
    """The rows of `read(datasets)`; of one split if that is a `DatasetDict`.

    Args:
      read: loads the data with the module `datasets`.
      source: name of the data in messages.
      split: which split to take; a single split is taken whatever its name.
      columns: that are taken, as far as they are there; (): all.
      note: added to `source` in the message of an error.
    """
    import datasets

    try:
        found = read(datasets)
    except Exception as error:  # the errors of its builders have no common class
        first = error
        while isinstance(first.__cause__, Exception):  # its own message may say only that it failed
            first = first.__cause__
        reason = " ".join(str(first).split())[:300]
        raise UserError(
            f"cannot read {source}{note} through datasets ({reason}): correct the name, or "
            "save the data as JSON lines and name that file"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found and len(found) > 1:
            raise UserError(
                f"{source} has no split {split!r}: name one of {', '.join(found)}, as "
                "owner/name:config/split, or as the split's own folder"
            )
        found = found[split] if split in found else next(iter(found.values()))
    if columns:
        found = found.select_columns([name for name in found.column_names if name in columns])
    return as_rows(found.to_list())
