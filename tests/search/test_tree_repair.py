"""A damaged file of trees keeps every whole record, and what was dropped is said."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog, write_records
from stair_jax.search.tree_repair import repair

RECORDS = [{"id": f"p{i}", "text": "step " * i, "values": [i / 3, None]} for i in range(5)]


@pytest.fixture
def path(tmp_path):
    write_records(tmp_path / "trees.jsonl.gz", RECORDS)
    return tmp_path / "trees.jsonl.gz"


def test_a_whole_file_is_left_as_it_is(path, tmp_path):
    before = path.read_bytes()
    assert repair(path) == "" and path.read_bytes() == before
    assert repair(tmp_path / "none.gz") == ""
    assert list(tmp_path.iterdir()) == [path]


def test_an_incomplete_last_record_is_cut_off(path, tmp_path):
    ends = [end for _, end in RecordLog(path).members()]
    os.truncate(path, ends[-1] - 4)
    assert repair(path) == f"its last record was incomplete ({ends[-1] - 4 - ends[-2]} bytes)"
    assert RecordLog(path).read() == RECORDS[:-1] and path.stat().st_size == ends[-2]
    assert list(tmp_path.iterdir()) == [path]
    os.truncate(path, 0)
    assert repair(path) == "it is empty"


@given(place=st.integers(0, 10**6), length=st.integers(1, 90), byte=st.integers(0, 255))
def test_whole_records_survive_damage_anywhere(tmp_path, place, length, byte):
    """Each record that the damage does not touch is kept; a second repair finds nothing to do."""
    path = tmp_path / "trees.jsonl.gz"
    for old in tmp_path.iterdir():
        old.unlink()
    write_records(path, RECORDS)
    ends = [0, *(end for _, end in RecordLog(path).members())]
    data = bytearray(path.read_bytes())
    start = place % len(data)
    stop = min(len(data), start + length)
    data[start:stop] = bytes([byte]) * (stop - start)
    path.write_bytes(data)
    touched = [i for i in range(len(RECORDS)) if ends[i] < stop and start < ends[i + 1]]
    said = repair(path)
    kept = [record["id"] for record in RecordLog(path)]
    assert set(kept) >= {f"p{i}" for i in range(len(RECORDS)) if i not in touched}
    assert [record for record in RECORDS if record["id"] in kept] == RecordLog(path).read()
    assert bool(said) == (len(kept) < len(RECORDS)) and repair(path) == ""
    if "damaged" in said:
        assert (tmp_path / "trees.jsonl.gz.damaged").read_bytes() == bytes(data)


def test_an_earlier_file_that_was_set_aside_is_kept(path, tmp_path):
    for content in (b"garbage", b"more garbage"):
        path.write_bytes(content)
        assert "0 whole ones were kept" in repair(path)
    assert (tmp_path / "trees.jsonl.gz.damaged").read_bytes() == b"garbage"
    assert (tmp_path / "trees.jsonl.gz.damaged2").read_bytes() == b"more garbage"


def test_records_of_another_kind_are_dropped(path):
    write_records(path, [*RECORDS[:2], {"number": 3}, *RECORDS[2:]])
    said = repair(path)
    assert "5 whole ones were kept" in said and RecordLog(path).read() == RECORDS
    assert json.loads(json.dumps(RECORDS)) == RECORDS


def test_what_is_no_file_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("folder", "pipe", "loop", "n" * 300, "nul\0"):
        with pytest.raises(UserError, match=r"cannot (read|write)"):
            repair(tmp_path / name)
            RecordLog(tmp_path / name).append({"id": "a"})
