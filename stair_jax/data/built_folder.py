"""A folder of data that was built: its files, and `data.json`, which is complete last."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
STUDY = "study"
Row = Mapping[str, Any]


def check_folder(out: Path, made: str = STUDY) -> None:
    """Raises a UserError unless a folder is new, empty, or has an earlier build of the same kind.

    Args:
      out: the folder.
      made: what is built, as the record of an earlier build has it in `made`.
    """
    check_free(out, DATA)
    if (out / DATA).is_file() and (before := _record(out).get("made", STUDY)) != made:
        raise UserError(f"--out={out} holds a {before}: name a new or an empty folder")


def check_free(out: Path, record: str) -> None:
    """Raises a UserError unless a folder is new, empty, or has a file of this name."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file: name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / record).is_file():
        raise UserError(f"--out={out} holds other files: name a new or an empty folder")


def write_folder(
    out: Path,
    files: Mapping[str, Sequence[Row]],
    left_out: Sequence[Row],
    record: dict[str, Any],
    card: Callable[[Mapping[str, Any]], str],
    others: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Writes all files; those of an earlier build that are not written anew are removed.

    Args:
      out: the folder.
      files: rows by path, without the ending `.jsonl`.
      left_out: the rows of `left_out.jsonl`.
      record: of `data.json`; gets `files`, {path: {bytes, sha256}}.
      card: makes `README.md` of the record.
      others: (path, bytes) of further files.
    """
    made = record.get("made", STUDY)
    check_folder(out, made)
    make_folder(out)
    before = _earlier(out)
    names = dict.fromkeys((*before, *(f"{name}.jsonl" for name in files), LEFT_OUT))
    write_json(out / DATA, {"made": made, "files": names})  # a build that is cut off is known
    written: dict[str, dict[str, Any]] = {}
    for name, rows in {**files, LEFT_OUT.removesuffix(".jsonl"): left_out}.items():
        data = b"".join(map(json_line, rows))
        written[f"{name}.jsonl"] = write_bytes(out / f"{name}.jsonl", data)
    for path, data in others:
        written[path] = write_bytes(out / path, data)
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
    root = out.resolve()
    files = _record(out).get("files") or ()
    return [path for path in files if (root / path).resolve().is_relative_to(root)]


def _record(out: Path) -> dict[str, Any]:
    record = read_json(out / DATA)
    return record if isinstance(record, dict) else {}


def write_bytes(path: Path, data: bytes) -> dict[str, Any]:
    """Writes a file, and returns {"bytes", "sha256"}."""
    with atomic_file(path) as file:
        file.write(data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
