"""The folder of a build: its files, and `data.json` as the last one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stair_jax.data.study.benchmark_files import benchmark_files
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.sources import Sources
from stair_jax.errors import UserError
from stair_jax.storage import (
    atomic_file,
    json_line,
    make_folder,
    plain,
    read_json,
    write_json,
    write_text,
)

DATA, CARD, LEFT_OUT = "data.json", "README.md", "left_out.jsonl"


def check_folder(out: Path) -> None:
    """Raises a UserError unless a folder is new, empty, or has an earlier build."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file: name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / DATA).is_file():
        raise UserError(f"--out={out} holds other files: name a new or an empty folder")


def write_folder(
    out: Path,
    files: Mapping[str, Sequence[Row]],
    left_out: Sequence[Row],
    sources: Sources,
    record: dict[str, Any],
    card: Callable[[Mapping[str, Any]], str],
    small: bool,
) -> None:
    """Writes all files; those of an earlier build that are not written anew are removed.

    Args:
      out: the folder.
      files: rows by path, without the ending `.jsonl`.
      left_out: the rows of `left_out.jsonl`.
      sources: of the files for benchmarks.
      record: of `data.json`; gets `files`, {path: {bytes, sha256}}.
      card: makes `README.md` of the record.
      small: without the files for benchmarks.
    """
    check_folder(out)
    make_folder(out)
    before = _earlier(out)
    (out / DATA).unlink(missing_ok=True)
    written: dict[str, dict[str, Any]] = {}
    for name, rows in {**files, LEFT_OUT.removesuffix(".jsonl"): left_out}.items():
        data = b"".join(map(json_line, rows))
        written[f"{name}.jsonl"] = _write(out / f"{name}.jsonl", data)
    for path, data in () if small else benchmark_files(sources):
        written[f"bench/{path}"] = _write(out / "bench" / path, data)
    for path in before:
        if path not in written:
            (out / path).unlink(missing_ok=True)
    record["files"] = written
    write_text(out / CARD, card(plain(record)))
    write_json(out / DATA, record)


def _earlier(out: Path) -> list[str]:
    """The files of an earlier build, by what it recorded; paths that lead elsewhere are none."""
    if not (out / DATA).exists():
        return []
    record = read_json(out / DATA)
    files = record.get("files") if isinstance(record, dict) else None
    root = out.resolve()
    return [path for path in files or () if (root / path).resolve().is_relative_to(root)]


def _write(path: Path, data: bytes) -> dict[str, Any]:
    with atomic_file(path) as file:
        file.write(data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
