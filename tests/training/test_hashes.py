"""Hashes of a checkpoint see each flipped bit, each cut and each missing file."""

import json
import shutil

import jax
import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.training import hashes
from stair_jax.training.checkpoints import Checkpoints
from stair_jax.training.keep import Keep

FILE = "hashes.process_0.json"


def save(folder, steps=(1,), keep=Keep(newest=3), metric=None):
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            state = {"x": jax.numpy.arange(300.0) * step, "y": jax.numpy.ones((4, 5))}
            checkpoints.save(step, state, {"step": step}, metric and {metric: float(step)})
    return folder / str(steps[0])


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)


def test_every_file_of_a_checkpoint_is_hashed(tmp_path):
    folder = save(tmp_path)
    names = [path.relative_to(folder).as_posix() for path in files_of(folder)]
    assert sorted(json.loads((folder / FILE).read_text())["files"]) == names
    assert hashes.check(folder) == hashes.Verdict()


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_any_file_is_seen(tmp_path, seed):
    folder = save(tmp_path)
    for number, path in enumerate(files_of(folder)):
        whole = path.read_bytes()
        place = hash((seed, number)) % (8 * len(whole))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        name = path.relative_to(folder).as_posix()
        assert hashes.check(folder).problem == f"{name} is not as it was written"
        assert hashes.glance(folder) == f"{name} is not as it was written"
        path.write_bytes(whole)
    assert hashes.check(folder).problem == ""


def test_cut_and_missing_files_are_named_with_what_is_wrong(tmp_path):
    folder = save(tmp_path)
    path = files_of(folder)[-1]
    name, size = path.relative_to(folder).as_posix(), path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert hashes.check(folder).problem == f"{name} has {size - 1} bytes and had {size}"
    assert not hashes.lacks_files(folder)
    path.unlink()
    assert hashes.check(folder).problem == f"{name} is missing" and hashes.lacks_files(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"processes": 1, "files": {"a": 3}}', "\x00" * 40]
)
def test_damaged_hashes_count_as_a_damaged_checkpoint(tmp_path, text):
    folder = save(tmp_path)
    (folder / FILE).write_text(text)
    assert hashes.check(folder) == hashes.Verdict(problem=f"{FILE} is damaged")


def test_what_no_hash_covers_is_said(tmp_path):
    folder = save(tmp_path)
    record = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(record | {"processes": 2}))
    assert hashes.check(folder) == hashes.Verdict(unchecked="it has hashes of 1 of 2 parts")
    (folder / FILE).unlink()
    assert hashes.check(folder) == hashes.Verdict(unchecked="it has no hashes")


def test_each_file_is_hashed_by_the_process_that_wrote_it(tmp_path, monkeypatch):
    """Files of no process, and of a process that is not there, fall to the first."""
    names = [
        "a/data.process_0/d/x",
        "a/data.process_1/d/x",
        "a/sizes/process_1",
        "a/process_7",
        "m",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(collectives, "num_processes", lambda: 2)
    parts = []
    for index in range(2):
        monkeypatch.setattr(collectives, "process_index", lambda index=index: index)
        hashes.write(tmp_path)
        parts.append(json.loads((tmp_path / f"hashes.process_{index}.json").read_text())["files"])
    assert [sorted(part) for part in parts] == [[names[0], names[3], names[4]], names[1:3]]
    monkeypatch.undo()
    assert hashes.check(tmp_path) == hashes.Verdict()


def test_a_file_that_cannot_be_read_back_is_an_error_of_the_save(tmp_path, monkeypatch):
    def fail(path):
        raise UserError(f"cannot read {path}: Input/output error")

    monkeypatch.setattr(hashes, "fingerprint_file", fail)
    with pytest.raises(UserError, match="Input/output error"):
        save(tmp_path)
    monkeypatch.undo()
    assert hashes.check(tmp_path / "1").unchecked == "it has no hashes"


def test_damage_that_shows_at_once_is_set_aside_when_the_folder_is_opened(tmp_path, capsys):
    save(tmp_path, (1, 2, 3))
    (tmp_path / "3" / "_CHECKPOINT_METADATA").write_text("{")
    with Checkpoints(tmp_path, Keep(newest=3)) as checkpoints:
        assert checkpoints.steps == [1, 2]
    assert "/3 is damaged (_CHECKPOINT_METADATA has 1 bytes and had" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "1" / "state")  # as a run that is killed while it deletes leaves it
    with Checkpoints(tmp_path, Keep(newest=3)) as checkpoints:
        assert checkpoints.steps == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3.damaged"]


def test_a_damaged_metric_of_a_best_checkpoint_is_not_passed_over(tmp_path):
    save(tmp_path, (3, 4), Keep(best="loss"), metric="loss")
    (tmp_path / "3" / "metrics" / "metrics").write_text('{"loss": 9.0}')
    with pytest.raises(UserError, match=r"/3 is damaged \(metrics/metrics is not .* delete .*/3,"):
        Checkpoints(tmp_path, Keep(best="loss"))
