"""Checkpoints: bitwise equal on other meshes, atomic, and failures of background saves."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training import checkpoints as module
from stair_jax.training.checkpoints import Checkpoints
from stair_jax.training.keep import Keep, discard
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import abstract_state, init_state

ROOT = Path(__file__).parents[2]
AXES = {"embedding": PartitionSpec("vocab", "embed"), "norm": PartitionSpec("norm")}
TX = make_optimizer(TrainingSettings(), 10).tx


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (16, 24), "norm": (24,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


ONE = MeshShape()


def make_state(shape=ONE, seed=0):
    """A state of non-zero parameters and moments, on the first devices."""
    state = init_state(make_params(seed), AXES, TX, make_mesh(shape))
    return jax.tree.map(lambda leaf: leaf + leaf.dtype.type(3), state)


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def test_a_state_is_restored_onto_other_meshes_with_the_same_bits(tmp_path):
    state = make_state(MeshShape(fsdp=4))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state, {"step": 7, "data": {"order": "a"}}, wait=True)
    for shape in (MeshShape(fsdp=2, tensor=2), MeshShape(), MeshShape(data=2, fsdp=4)):
        like = abstract_state(make_params(), AXES, TX, make_mesh(shape))
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.step == 7
            restored, about = checkpoints.restore(like)
        assert bits(restored) == bits(state)
        assert about == {"step": 7, "data": {"order": "a"}}
        for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True):
            assert leaf.sharding == wanted.sharding
    assert len(restored.params["embedding"].sharding.device_set) == 8


@pytest.fixture
def held(monkeypatch):
    """Makes saves finish only when the event is set."""
    import orbax.checkpoint as ocp

    event, save = threading.Event(), ocp.JsonCheckpointHandler._save_fn

    async def slow(self, *arguments):
        event.wait(30)
        return await save(self, *arguments)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", slow)
    yield event
    event.set()


def test_steps_go_on_and_take_over_the_arrays_while_a_save_is_written(tmp_path, held):
    state = make_state(MeshShape(fsdp=4))
    saved = bits(state)
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 1})
        for _ in range(3):
            state = step(state)
        jax.block_until_ready(state)
        checkpoints.check()
        assert not (tmp_path / "1").exists()  # in progress: `save` did not wait for it
        held.set()
        checkpoints.wait()
        restored, _ = checkpoints.restore(make_state())
    assert bits(restored) == saved and bits(state) != saved


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the file system is read-only")],
)
def test_an_error_of_the_writer_comes_with_a_later_step(tmp_path, monkeypatch, code, reason):
    """The previous checkpoint is kept."""
    import orbax.checkpoint as ocp

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {"step": 1}, wait=True)

    async def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"cannot write.*{reason}"):
        patch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fail)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(2, make_state(seed=2), {"step": 2})
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                checkpoints.check()
                time.sleep(0.01)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [1]
        restored, about = checkpoints.restore(make_state())
    assert bits(restored) == bits(make_state()) and about["step"] == 1


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_started(tmp_path):
    """Orbax's threads would wait for a folder that is never created, for minutes."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        threads = threading.active_count()
        folder.rmdir()
        folder.write_text("not a folder")
        with pytest.raises(UserError, match=r"cannot write .*: a part of the path is a file"):
            checkpoints.save(1, make_state(), {"step": 1})
        assert threading.active_count() == threads


def test_an_error_in_the_block_is_not_hidden_by_one_of_the_writer(tmp_path, monkeypatch, capsys):
    import orbax.checkpoint as ocp

    async def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fail)
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {"step": 1})
        raise ZeroDivisionError
    assert "the last checkpoint was not written: cannot write" in capsys.readouterr().err


def test_what_is_kept(tmp_path):
    """The two newest, and the two best: highest accuracy or lowest loss."""
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 3.5]
    for metric, kept, best in (("accuracy", [1, 3, 5, 6], 1), ("loss", [2, 4, 5, 6], 2)):
        folder = tmp_path / metric
        for start in (0, 3):  # the second time, earlier metrics are read from disk
            with Checkpoints(folder, Keep(newest=2, best=metric, num_best=2)) as checkpoints:
                for step, value in list(enumerate(values, start=1))[start : start + 3]:
                    checkpoints.save(step, make_state(), {}, {metric: value, "other": 0.0})
                assert checkpoints.best == best
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.steps == kept
            assert checkpoints.best is None
        discard(folder)
        assert (folder / "6").exists()
    with Checkpoints(tmp_path / "new", Keep(newest=2)) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, make_state(), {})
        checkpoints.wait()
        assert checkpoints.steps == [3, 4]
    discard(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {"number": 1})
        checkpoints.save(1, make_state(seed=1), {"number": 2}, wait=True)
        restored, about = checkpoints.restore(make_state())
    assert about == {"number": 1} and bits(restored) == bits(make_state())


def test_half_written_folders_are_never_taken_for_whole_ones(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(), {"step": 3}, wait=True)
    whole = tmp_path / "3"
    (whole / "hashes.process_0.json").unlink()  # they are written when all else is there
    shutil.copytree(whole, tmp_path / "9.orbax-checkpoint-tmp")
    (tmp_path / "4").mkdir()  # an empty folder with the name of a checkpoint
    for step, name in enumerate(module._WHOLE, start=5):
        shutil.copytree(whole, tmp_path / str(step))
        (tmp_path / str(step) / name).unlink()
    shutil.copytree(whole, tmp_path / "8")
    (tmp_path / "8" / "about" / "metadata").write_text('{"step": ')
    (tmp_path / "notes.txt").write_text("of the user")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [3]
        assert bits(checkpoints.restore(make_state())[0]) == bits(make_state())
        checkpoints.save(4, make_state(), {"step": 4}, wait=True)
        assert checkpoints.step == 4
    assert {path.name for path in tmp_path.iterdir()} == {"4", "notes.txt"}


def save_for_ever(folder):
    """Body of the process to kill: saves arrays that contain the number of the step."""
    step_of = jax.jit(lambda step: {"x": jax.numpy.full((2048, 2048), step)})
    with Checkpoints(folder, Keep(newest=2)) as checkpoints:
        for step in range(1, 10_000):
            checkpoints.save(step, step_of(jax.numpy.int32(step)), {"step": step})


@pytest.mark.distributed
@pytest.mark.slow
def test_a_process_killed_in_the_middle_of_a_save_leaves_the_one_before(tmp_path):
    code = f"import runpy; runpy.run_path({__file__!r})['save_for_ever']({str(tmp_path)!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        while not is_stopped_in_a_save(process, tmp_path):
            assert process.poll() is None, "the process ended before it was killed"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    (left,) = tmp_path.glob("*tmp*")
    saved = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    with Checkpoints(tmp_path, Keep(newest=2)) as checkpoints:
        assert checkpoints.step == max(saved) < int(left.name.partition(".")[0])
        like = {"x": jax.ShapeDtypeStruct((2048, 2048), np.int32)}
        state, about = checkpoints.restore(like)
    assert about == {"step": max(saved)}
    np.testing.assert_array_equal(state["x"], max(saved))
    assert not left.exists()


def is_stopped_in_a_save(process, folder):
    """Pauses the process; resumes it unless it is in a save that follows a complete one."""
    time.sleep(0.003)
    if not list(folder.glob("*tmp*")) or not (folder / "2").exists():
        return False
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.02)
    if list(folder.glob("*tmp*")) and any(path.name.isdigit() for path in folder.iterdir()):
        return True
    process.send_signal(signal.SIGCONT)
    return False


def test_a_checkpoint_of_another_model_is_an_error_that_names_it(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": jax.numpy.zeros(4)}, {}, wait=True)
        with pytest.raises(UserError, match=f"the checkpoint in {tmp_path}/1 cannot be read"):
            checkpoints.restore({"x": jax.ShapeDtypeStruct((5,), np.float32)})
    assert json.loads((tmp_path / "1" / "about" / "metadata").read_text()) == {}
