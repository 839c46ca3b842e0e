"""Files survive crashes and full disks: each is the old or the new one, never half written."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from stair_jax import storage
from stair_jax.errors import UserError


def test_json_round_trip_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b.json"
    storage.write_json(path, {"b": (1, 2.5), "a": Path("x/y"), "ü": None})
    assert storage.read_json(path) == {"b": [1, 2.5], "a": "x/y", "ü": None}
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_nan_and_infinity_become_null(tmp_path):
    storage.write_json(tmp_path / "a.json", [float("nan"), float("inf"), np.float32("nan"), 1.0])
    assert json.loads((tmp_path / "a.json").read_text()) == [None, None, None, 1.0]


def test_values_of_numpy_jax_and_dataclasses():
    @dataclasses.dataclass
    class Point:
        x: int
        y: tuple[int, ...]

    value = [np.int32(3), np.bool_(True), jnp.arange(2), Point(1, (2,)), {1: {"b", "a"}}]
    assert storage.plain(value) == [3, True, [0, 1], {"x": 1, "y": [2]}, {"1": ["a", "b"]}]
    with pytest.raises(TypeError, match="no JSON form"):
        storage.plain(object())


def test_jsonl_round_trip_keeps_odd_line_ends(tmp_path):
    rows = [{"text": "a\u2028b\x85c\nd"}, {"text": ""}]
    storage.write_jsonl(tmp_path / "a.jsonl", rows)
    assert storage.read_jsonl(tmp_path / "a.jsonl") == rows
    lines = list(storage.iterate_jsonl(tmp_path / "a.jsonl"))
    assert [storage.read_row(tmp_path / "a.jsonl", line.start, line.end) for line in lines] == rows
    with pytest.raises(UserError, match="was changed while it was read"):
        storage.read_row(tmp_path / "a.jsonl", lines[0].start + 1, lines[0].end)


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "a.json"
    for read in (storage.read_json, storage.read_jsonl, storage.fingerprint_file):
        with pytest.raises(UserError, match=str(path)):
            read(path)
    path.write_text('{"a": 1}\n{"a"')
    with pytest.raises(UserError, match=f"{path} is damaged"):
        storage.read_json(path)
    with pytest.raises(UserError, match=f"{path}, line 2"):
        storage.read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1, is not a JSON object"):
        storage.read_jsonl(path)
    path.write_text('{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n')
    with pytest.raises(UserError, match="line 2, contains a lone surrogate"):
        storage.read_jsonl(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        storage.read_json(path)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    storage.write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("the source of the rows fails")

    with pytest.raises(RuntimeError):
        storage.write_jsonl(path, rows())
    assert storage.read_jsonl(path) == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_path_and_leaves_no_half_file(tmp_path, full_disk):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=f"cannot write {path}: the disk is full"):
        storage.write_json(path, {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path):
    (tmp_path / "log").symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full"), storage.using_disk(tmp_path):
        (tmp_path / "log").write_text("a")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_disk_errors_of_other_libraries_are_known_by_their_text(code, tmp_path):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}"), storage.using_disk(tmp_path):
        raise RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ValueError, match="ours"), storage.writing(tmp_path):
        raise ValueError("ours")
    with pytest.raises(PermissionError), storage.using_disk(tmp_path):
        raise PermissionError(errno.EACCES, "reading something else")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/x/a.json", "there is no such folder"),
        ("n" * 300, "too long"),
        (f"{'n' * 300}/a.json", "too long"),
        ("loop", None),  # is replaced by the file
        ("loop/a.json", "link"),
        ("folder", "there is a folder of that name"),
        ("nul\0", "NUL"),
    ],
)
def test_what_the_system_refuses_is_one_line_that_names_the_path(tmp_path, place, reason):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    if reason is None:
        storage.write_json(path, 1)
        assert storage.read_json(path) == 1
        return
    with pytest.raises(UserError, match=f"cannot write .*{reason}"):
        storage.write_json(path, 1)
    for read in (storage.read_json, storage.fingerprint_file):
        with pytest.raises(UserError, match=r"cannot read|there is no file"):
            read(path)


def test_a_named_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (storage.read_jsonl, storage.fingerprint_file):
        with pytest.raises(UserError, match="is a named pipe, a device or a socket, not a file"):
            read(tmp_path / "pipe")


def test_a_limit_of_file_sizes_leaves_no_half_file(tmp_path, small_files):
    with pytest.raises(UserError, match="a limit on the size of files is reached"):
        storage.write_json(tmp_path / "a.json", "a" * 9999)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_no_text_can_be_written_down(tmp_path):
    path = os.fsdecode(b"a\xff")
    storage.write_json(tmp_path / "a.json", {"path": path, "ü": 1})
    assert storage.read_json(tmp_path / "a.json") == {"path": path, "ü": 1}
    assert "ü" in (tmp_path / "a.json").read_text()


def test_a_file_in_place_of_a_folder_is_the_users_mistake(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        storage.write_json(tmp_path / "run" / "a.json", 1)


def test_fingerprints_see_values_and_not_their_containers(tmp_path):
    a = storage.fingerprint({"a": (1, 2), "b": Path("x")})
    assert a == storage.fingerprint(ConfigDict({"b": "x", "a": [1, 2]}))
    assert a == storage.fingerprint(FrozenConfigDict({"b": "x", "a": [1, 2]}))
    assert a != storage.fingerprint({"a": (2, 1), "b": "x"})
    assert storage.fingerprint(1) != storage.fingerprint(1.5)
    assert len({storage.fingerprint(v) for v in (None, float("inf"), float("nan"))}) == 3


def test_fingerprints_of_files_and_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"abc")
    assert storage.fingerprint_file(tmp_path / "a" / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    before = storage.fingerprint_folder(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert storage.fingerprint_folder(tmp_path) != before
    with pytest.raises(UserError, match="no folder"):
        storage.fingerprint_folder(tmp_path / "b")
