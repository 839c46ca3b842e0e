"""Files of TensorBoard events: scalars and texts by step, without TensorFlow or protobuf.

A file is a row of records (TFRecord: length, checksum, message, checksum), each an `Event` of
tensorboard/compat/proto/event.proto. The few fields that we write are encoded here: importing a
package for it takes longer than most stages of a small run, more so where it finds torch.
"""

import re
import socket
import struct
import time
from pathlib import Path

from stair_jax import storage

_VERSION = "brain.Event:2"
_FORBIDDEN = re.compile(r"[^-/\w.]")  # in tags
_STRING = 7  # DT_STRING of TensorFlow's types
_START = 1  # SessionLog.START: what was written for this step and later ones is void
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # kinds of fields


class EventFile:
    """A new file of events in a folder; TensorBoard shows those of all files together."""

    def __init__(self, folder: Path, first_step: int | None = None):
        """Creates the file.

        Args:
          folder: that TensorBoard is shown.
          first_step: events of earlier files from this step on do not count; None: all do.

        Raises:
          UserError: the file cannot be written.
        """
        now = time.time()
        self._path = folder / f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}"
        with storage.writing(self._path):
            self._file = open(self._path, "ab")  # noqa: SIM115
        self._write(0, _field(3, _VERSION.encode()))
        if first_step is not None:
            self._write(first_step, _field(7, _field(1, _START)))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a finite number."""
        self._write_value(tag, _field(2, float(value)), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Writes a text in Markdown."""
        shape = _field(2, _field(2, _field(1, 1)))  # one dimension of size 1
        tensor = _field(1, _STRING) + shape + _field(8, text.encode())
        plugin = _field(9, _field(1, _field(1, b"text")))
        self._write_value(f"{tag}/text_summary", plugin + _field(8, tensor), step)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write_value(self, tag: str, value: bytes, step: int) -> None:
        clean = _FORBIDDEN.sub("_", tag).lstrip("/")
        self._write(step, _field(5, _field(1, _field(1, clean.encode()) + value)))

    def _write(self, step: int, what: bytes) -> None:
        time_and_step = _key(1, _DOUBLE) + struct.pack("<d", time.time()) + _field(2, int(step))
        event = time_and_step + what
        length = struct.pack("<Q", len(event))
        with storage.writing(self._path):
            self._file.write(length + _checksum(length) + event + _checksum(event))
            self._file.flush()


def _field(number: int, value: int | float | bytes) -> bytes:
    """A field of a message: a whole number, a float32, or bytes."""
    if isinstance(value, float):
        return _key(number, _FLOAT) + struct.pack("<f", value)
    if isinstance(value, int):
        return _key(number, _VARINT) + _varint(value)
    return _key(number, _BYTES) + _varint(len(value)) + value


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first; negative ones as of 64 bits."""
    value &= 2**64 - 1
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _checksum(data: bytes) -> bytes:
    """CRC-32C (RFC 3720), rotated and shifted as in TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = [_crc_of(byte) for byte in range(256)]
