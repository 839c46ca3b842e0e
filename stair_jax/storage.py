"""Crash-safe files: atomic JSON and JSON lines, fingerprints.

A reader sees either the old file or the complete new one, never a part. A full or read-only disk
becomes a `UserError` that names the path.
"""

import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from stair_jax.addresses import require_local
from stair_jax.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")

_DISK_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EFBIG: "a limit on the size of files is reached (ulimit -f, or the file system's): "
    "raise it, then run the same command again",
    errno.EIO: "the disk fails: see the system's log, or choose another folder",
}
_PATH_REASONS = {
    errno.EACCES: "permission denied: choose another folder, or change its permissions",
    errno.EPERM: "permission denied: choose another folder, or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder, or a broken link: choose another",
    errno.EEXIST: "a part of the path is a file, not a folder, or a broken link: choose another",
    errno.EISDIR: "there is a folder of that name: choose another path",
    errno.ENOENT: "there is no such folder, and none can be made: choose another one",
    errno.ENAMETOOLONG: "a name in the path is too long: choose a shorter one",
    errno.ELOOP: "its symbolic links form a loop: choose another path",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}
_NUL = "embedded null"  # of Python's ValueError for a path that holds a NUL character


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Context that turns errors of an unwritable disk or path into a `UserError` naming `path`."""
    try:
        with using_disk(path):
            yield
    except BrokenPipeError:  # of what is said meanwhile: nobody listens any more
        raise
    except OSError as error:
        reason = _PATH_REASONS.get(error.errno or 0) or f"{error.strerror or error}"
        raise UserError(f"cannot write {path}: {reason}") from error
    except ValueError as error:
        if _NUL not in str(error):
            raise
        raise UserError(f"cannot write {str(path)!r}: a path holds no NUL characters") from error


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Context that turns errors of a file that cannot be read into a `UserError` naming `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged (not UTF-8 text)") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        if _NUL not in str(error):
            raise
        raise UserError(f"cannot read {str(path)!r}: a path holds no NUL characters") from error


def check_regular(path: str | Path) -> None:
    """Raises a UserError if there is something at `path` that is no file of bytes.

    A named pipe would block its reader, and a device may have no end.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return  # who opens it says so
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a named pipe, a device or a socket"
        raise UserError(f"cannot read {path}: it is {what}, not a file")


@contextmanager
def using_disk(folder: str | Path) -> Iterator[None]:
    """Context that turns errors of a full or read-only disk into a `UserError` naming `folder`.

    Also for libraries with native writers (safetensors, Orbax, tokenizers), whose exceptions carry
    the system's message only as text.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for code, reason in _DISK_REASONS.items():
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                raise UserError(f"cannot write {folder}: {reason}") from error
        raise


def make_folder(path: str | Path) -> Path:
    """Creates a folder and its parents, if they do not exist, and returns its path.

    Raises:
      UserError: the folder cannot be created, or is an address of object storage.
    """
    require_local(path, "the folder to write")
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` at the end of the block, completely or not at all.

    A temporary file in the same folder (a rename is atomic only within a file system) is flushed to
    disk, then renamed.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes the entries of `folder` to disk: without it, a crash may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Writes one JSON value atomically; NaN and infinities, which JSON lacks, become null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as file:
        # A path whose bytes are no text has lone surrogates: their escapes are what JSON has.
        file.write(text.encode(errors="backslashreplace"))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: the file is missing, no regular file, or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged (not JSON: {error})") from error
    except RecursionError as error:
        raise UserError(f"{path} is damaged: its JSON is nested too deep") from error


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Writes JSON lines atomically, one per row."""
    with atomic_file(path) as file:
        for row in rows:
            file.write(json_line(row))


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Reads JSON lines; blank lines are skipped.

    Raises:
      UserError: as `iterate_jsonl`.
    """
    return [line.row for line in iterate_jsonl(path)]


class JsonLine(NamedTuple):
    """A JSON object that is a line of a file: its first byte there, and the one after its last."""

    start: int
    end: int
    row: dict[str, Any]


def iterate_jsonl(path: str | Path) -> Iterator[JsonLine]:
    """Iterates over JSON lines, one in memory at a time; blank lines are skipped.

    Raises:
      UserError: the file is missing, or a line is not a JSON object or not valid Unicode; names the
        line.
    """
    number = end = 0
    with reading(path):
        check_regular(path)
        with open(path, "rb") as file:
            for block in file:
                for line in block.splitlines(keepends=True):  # a lone "\r" ends a line too
                    number, start, end = number + 1, end, end + len(line)
                    text = line.decode().rstrip("\r\n")
                    if text.strip():
                        yield JsonLine(start, end, parse_row(text, f"{path}, line {number},"))


def read_row(path: str | Path, start: int, end: int) -> dict[str, Any]:
    """The JSON object between two places of a file, as `iterate_jsonl` gave them; reads no other.

    Raises:
      UserError: there is none: the file was changed meanwhile.
    """
    with reading(path), open(path, "rb") as file:
        file.seek(start)
        line = file.read(end - start)
    try:
        return parse_row(line.decode(), f"{path}, a line")
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} was changed while it was read: run the same command again"
        ) from error


def parse_row(text: str, where: str) -> dict[str, Any]:
    """The JSON object that a line is.

    Args:
      text: of the line.
      where: file and line, for messages.

    Raises:
      UserError: it is none, or holds what is not valid Unicode.
    """
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object")
    # Escapes can smuggle in lone surrogates, which no tokenizer accepts. Parsed again as text,
    # since pairs of escapes are valid; only for the few lines that have escapes.
    if "\\u" in text and _SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise UserError(
            f"{where} contains a lone surrogate (\\ud800 to \\udfff), "
            "which is not valid text: remove it"
        )
    return row


def read_text(path: str | Path) -> str:
    """The text of a file, in UTF-8.

    Raises:
      UserError: it cannot be read.
    """
    with reading(path):
        check_regular(path)
        return Path(path).read_text(encoding="utf-8")


def json_line(value: Any) -> bytes:
    """`value` as a line of JSON, in UTF-8; NaN and infinities become null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def plain(value: Any, keep_nonfinite: bool = False) -> Any:
    """Converts a value to JSON types: configs, dataclasses, tuples, sets, paths, NumPy, JAX values.

    Args:
      value: to convert.
      keep_nonfinite: convert NaN and infinities to strings instead of null.

    Raises:
      TypeError: the value has no JSON form.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return repr(float(value)) if keep_nonfinite else None
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, keep_nonfinite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, keep_nonfinite) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, keep_nonfinite) for item in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist(), keep_nonfinite)
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`; independent of the order of keys."""
    canonical = json.dumps(
        plain(value, keep_nonfinite=True), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def fingerprint_file(path: str | Path) -> str:
    """SHA-256 (hex) of the bytes of a file.

    Raises:
      UserError: the file cannot be read.
    """
    with reading(path):
        check_regular(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(path: str | Path) -> str:
    """SHA-256 (hex) of the relative paths and bytes of all files below a folder.

    Raises:
      UserError: there is no such folder, or a file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"there is no folder {path}")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return fingerprint(
        {file.relative_to(path).as_posix(): fingerprint_file(file) for file in files}
    )
