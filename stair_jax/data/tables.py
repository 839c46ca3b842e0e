"""Parquet and Arrow files, read batch by batch up to a limit of memory.

Both may be compressed, and may name a long value once for many rows. A batch is therefore asked for
its size before it is unpacked, as far as the format says it, and rows are counted as they will be
in memory. An Arrow file (Feather too) is a stream between two marks, and is read as one.
"""

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from stair_jax.data.text_files import SourceRows
from stair_jax.data.unpacking import check_size, most_bytes
from stair_jax.errors import UserError

PARQUET, ARROW = ".parquet", (".arrow", ".feather", ".ipc")
_FILE_MARK = b"ARROW1\x00\x00"
_ROWS = 200  # that are unfolded at once
_CELL = 32  # bytes that a cell has at least in memory


def read_parquet(path: Path, columns: Collection[str] = ()) -> SourceRows:
    """Reads a Parquet file.

    Args:
      path: of the file.
      columns: that are read, as far as they are there; (): all.

    Raises:
      UserError: there is no such file, it is none, or holds more than its size allows.
    """
    return _read(path, columns, _parquet_batches, "a Parquet file")


def read_arrow(path: Path, columns: Collection[str] = ()) -> SourceRows:
    """Reads a file or a stream of Arrow's IPC format, such as the files of `datasets`.

    Args:
      path: of the file.
      columns: that are kept, as far as they are there; (): all.

    Raises:
      UserError: as `read_parquet`.
    """
    return _read(path, columns, _arrow_batches, "an Arrow file")


def _read(path: Path, columns: Collection[str], batches: Any, what: str) -> SourceRows:
    if not path.exists():
        raise UserError(f"there is no file {path}")
    import pyarrow

    found = SourceRows()
    try:
        limit = most_bytes(path.stat().st_size)
        for row in _rows(batches(path, columns, limit), limit, path):
            found.add(f"row {len(found) + 1}", row)
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, struct.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"cannot read {path} as {what} ({reason}): copy or write it again"
        ) from error
    return found


def _rows(batches: Iterator[Any], limit: int, path: Path) -> Iterator[dict[str, Any]]:
    size = 0
    for batch in batches:
        _check_names(batch.schema.names)
        batch.validate(full=True)  # a damaged one would end the process
        for start in range(0, batch.num_rows, _ROWS):
            part = _plain(batch.slice(start, _ROWS))
            size += part.nbytes + _CELL * part.num_rows * part.num_columns
            check_size(size, limit, path)
            yield from part.to_pylist()


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"it has the column {name!r} twice")


def _parquet_batches(path: Path, columns: Collection[str], limit: int) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
        check_size(sum(group.total_byte_size for group in groups), limit, path)
        names = file.schema_arrow.names
        _check_names(names)
        taken = [name for name in names if name in columns] if columns else None
        yield from file.iter_batches(_ROWS * 5, columns=taken)


def _arrow_batches(path: Path, columns: Collection[str], limit: int) -> Iterator[Any]:
    import pyarrow

    with open(path, "rb") as file:
        if file.read(len(_FILE_MARK)) != _FILE_MARK:
            file.seek(0)
        start = file.tell()
        check_size(_declared_size(pyarrow.ipc.MessageReader.open_stream(file)), limit, path)
        file.seek(start)
        for batch in pyarrow.ipc.open_stream(file):
            names = [name for name in batch.schema.names if name in columns]
            yield batch.select(names) if columns else batch


def _declared_size(messages: Any) -> int:
    """Bytes of all buffers when they are unpacked, by what stands in front of each."""
    return sum(
        _unpacked_size(memoryview(message.metadata), memoryview(message.body), message.type)
        for message in messages
        if message.body is not None
    )


def _unpacked_size(header: memoryview, body: memoryview, kind: str) -> int:
    """Bytes of a message's buffers: of each compressed one, its first 8 bytes say them.

    The header is a flat buffer: Message.header is its third field; RecordBatch is {length, nodes,
    buffers, compression}, and DictionaryBatch.data, its second field, is one (Arrow columnar
    format, "Encapsulated message format", Message.fbs).
    """
    root: int = struct.unpack_from("<I", header, 0)[0]
    batch = _table(header, root, 2)
    if kind == "dictionary" and batch is not None:
        batch = _table(header, batch, 1)
    if batch is None or _field(header, batch, 3) is None:
        return len(body)
    buffers = _table(header, batch, 2)
    if buffers is None:
        return len(body)
    count: int = struct.unpack_from("<I", header, buffers)[0]
    size = 0
    for offset, length in struct.iter_unpack("<qq", header[buffers + 4 :][: 16 * count]):
        declared = struct.unpack_from("<q", body, offset)[0] if length >= 8 else -1
        size += length if declared < 0 else declared  # -1: this one is not compressed
    return size


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Where a field of a flat buffer's table is; None: it has none."""
    entries = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", data, entries)[0]:
        return None
    offset: int = struct.unpack_from("<H", data, entries + place)[0]
    return table + offset if offset else None


def _table(data: memoryview, table: int, number: int) -> int | None:
    """Where the table or vector that a field refers to is; None: it has none."""
    place = _field(data, table, number)
    return None if place is None else place + struct.unpack_from("<I", data, place)[0]


def _plain(batch: Any) -> Any:
    """A batch in which each row has its own values: neither dictionaries nor views."""
    import pyarrow

    schema = pyarrow.schema([(field.name, _plain_type(field.type)) for field in batch.schema])
    return batch if schema.types == batch.schema.types else batch.cast(schema)


def _plain_type(kind: Any) -> Any:
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pyarrow.large_string()
    if types.is_binary_view(kind):
        return pyarrow.large_binary()
    if types.is_struct(kind):
        return pyarrow.struct([(field.name, _plain_type(field.type)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pyarrow.large_list(_plain_type(kind.value_type)) if _is_folded(kind) else kind
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pyarrow.large_list(_plain_type(kind.value_type))
    return kind


def _is_folded(kind: Any) -> bool:
    """Whether the values of a list would change their type."""
    return bool(_plain_type(kind.value_type) != kind.value_type)
