"""A record log survives crashes and full disks: no complete record is lost, and none is silent."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog

RECORDS = [{"id": f"p{i}", "text": "step " * i, "values": [i / 3, None]} for i in range(4)]


def write_log(path: Path, records=RECORDS) -> RecordLog:
    log = RecordLog(path)
    for record in records:
        log.append(record)
    return log


def test_record_log_is_gzip_of_json_lines_with_the_same_bytes_each_time(tmp_path):
    write_log(tmp_path / "a.gz")
    write_log(tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    with gzip.open(tmp_path / "a.gz", "rt") as file:
        assert [json.loads(line) for line in file] == RECORDS
    assert RecordLog(tmp_path / "none.gz").read() == []


def test_records_can_be_appended_together_and_read_where_they_are(tmp_path):
    log = RecordLog(tmp_path / "log.gz")
    assert log.extend([]) == [] and not log.path.exists()
    places = [*log.extend(RECORDS[:1]), *log.extend(RECORDS[1:])]
    assert places[0][0] == 0 and places[-1][1] == log.path.stat().st_size
    data = log.path.read_bytes()
    assert [json.loads(gzip.decompress(data[a:b])) for a, b in places] == RECORDS
    assert [end for _, end in log.members()] == [end for _, end in places]
    assert [log.at(start, end) for start, end in places] == RECORDS
    log.path.write_bytes(b"x" * places[0][1] + data[places[0][1] :])
    assert log.at(*places[1]) == RECORDS[1]  # no other record is read
    for start, end in (places[0], (places[1][0], places[1][1] - 1)):
        with pytest.raises(UserError, match="was changed while it was read"):
            log.at(start, end)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/x/log.gz", "there is no such folder"),
        ("n" * 300, "too long"),
        (f"{'n' * 300}/log.gz", "too long"),
        ("loop/log.gz", "link"),
        ("nul\0", "NUL"),
    ],
)
def test_what_the_system_refuses_is_one_line_that_names_the_path(tmp_path, place, reason):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=f"cannot write .*{reason}"):
        RecordLog(tmp_path / place).append({})


def test_logs_that_are_no_files_are_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    for name in ("folder", "loop", "pipe"):
        with pytest.raises(UserError, match=f"cannot (read|write) .*{name}"):
            RecordLog(tmp_path / name).append({"a": 1})


def test_a_limit_of_file_sizes_takes_back_the_record(tmp_path, small_files):
    log = RecordLog(tmp_path / "log.gz")
    log.append(RECORDS[0])
    with pytest.raises(UserError, match="a limit on the size of files is reached"):
        log.append({"noise": os.urandom(9999).hex()})
    assert log.read() == RECORDS[:1]


@given(cut=st.integers(0, 1000), garbage=st.binary(max_size=12))
def test_a_torn_tail_costs_at_most_the_last_record(tmp_path, cut, garbage):
    path = tmp_path / "log.gz"
    path.unlink(missing_ok=True)
    write_log(path, RECORDS[:-1])
    start = path.stat().st_size
    write_log(path, RECORDS[-1:])
    size = path.stat().st_size
    kept = start + cut % (size - start + 1)
    path.write_bytes(path.read_bytes()[:kept] + garbage)
    whole = RECORDS if kept == size else RECORDS[:-1]
    assert RecordLog(path).read() == whole
    RecordLog(path).append({"id": "new"})
    assert RecordLog(path).read() == [*whole, {"id": "new"}]


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_damage_before_the_last_record_is_never_silent(tmp_path, position, flip):
    path = tmp_path / "log.gz"
    path.unlink(missing_ok=True)
    write_log(path, RECORDS[:-1])
    end = path.stat().st_size
    write_log(path, RECORDS[-1:])
    data = bytearray(path.read_bytes())
    data[position % end] ^= flip
    path.write_bytes(data)
    try:
        assert RecordLog(path).read() == RECORDS  # an unchecked header byte
    except UserError as error:
        assert f"{path} is damaged at record" in str(error)
        with pytest.raises(UserError):
            RecordLog(path).append({"id": "new"})
        assert path.read_bytes() == bytes(data)


def test_the_damaged_record_is_numbered(tmp_path):
    path = tmp_path / "log.gz"
    write_log(path, RECORDS[:1])
    first = path.stat().st_size
    write_log(path, RECORDS[1:])
    data = bytearray(path.read_bytes())
    data[first + 12] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged at record 2"):
        RecordLog(path).read()


def test_a_full_disk_takes_back_the_record(tmp_path, full_disk):
    path = tmp_path / "log.gz"
    log = RecordLog(path)
    with pytest.raises(UserError, match=f"cannot write {path}: the disk is full"):
        log.append(RECORDS[0])
    assert path.read_bytes() == b""


def test_records_longer_than_a_chunk(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2**62, 20_000).tolist()
    records = [{"noise": noise, "i": i} for i in range(3)]
    assert write_log(tmp_path / "log.gz", records).read() == records
