"""Files of TensorBoard events, read by TensorBoard's own messages."""

import struct
import zlib

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from stair_jax.errors import UserError
from stair_jax.event_file import EventFile, _checksum


def events_of(folder):
    """The events of the one file in a folder; length and data have their checksums."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        for start, size in ((place, 8), (place + 12, length)):
            (checksum,) = struct.unpack_from("<I", data, start + size)
            assert checksum == masked_crc32c(data[start : start + size])
        events.append(Event.FromString(data[place + 12 : place + 12 + length]))
        place += length + 16
    return events


def write(folder, *scalars, first_step=None):
    file = EventFile(folder, first_step)
    for scalar in scalars:
        file.add_scalar(*scalar)
    file.close()


def test_scalars_by_tag_and_step(tmp_path):
    write(tmp_path, ("loss", 0.5, 1), ("eval/x y:z", -3.0, 2**40))
    version, *scalars = events_of(tmp_path)
    assert version.file_version == "brain.Event:2"
    found = [(v.tag, v.simple_value, event.step) for event in scalars for v in event.summary.value]
    assert found == [("loss", 0.5, 1), ("eval/x_y_z", -3.0, 2**40)]
    assert all(1e9 < event.wall_time < 1e11 for event in scalars)


def test_texts_are_those_of_the_plugin_of_texts(tmp_path):
    file = EventFile(tmp_path)
    file.add_text("samples/tree", "**é**" * 100, 7)
    file.close()
    (value,) = events_of(tmp_path)[1].summary.value
    assert (value.tag, value.metadata.plugin_data.plugin_name) == (
        "samples/tree/text_summary",
        "text",
    )
    assert value.tensor.string_val[0].decode() == "**é**" * 100
    assert [dim.size for dim in value.tensor.tensor_shape.dim] == [1]
    assert value.tensor.dtype == 7  # DT_STRING


@pytest.mark.parametrize("first", [0, 5])
def test_a_file_that_goes_on_says_from_which_step(tmp_path, first):
    write(tmp_path, first_step=first)
    start = events_of(tmp_path)[1]
    assert (start.step, start.session_log.status) == (first, SessionLog.START)


def test_what_is_written_can_be_read_at_once(tmp_path):
    file = EventFile(tmp_path)
    file.add_scalar("loss", 1.0, 0)
    assert len(events_of(tmp_path)) == 2
    file.close()


def test_the_checksum_is_crc_32c_and_no_other():
    """The check value of the standard, 0xE3069283 for these digits, rotated and shifted."""
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert _checksum(b"123456789") == struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)
    assert zlib.crc32(b"123456789") != 0xE3069283


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/none/events"):
        EventFile(tmp_path / "none")
