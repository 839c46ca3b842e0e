import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stair_jax.data.packing import Example
from stair_jax.errors import UserError
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import make_mesh
from stair_jax.testing.tiny_models import tiny_config
from stair_jax.training import hashes, loop
from stair_jax.training.batches import Batches, Group
from stair_jax.training.checkpoints import Checkpoints, Keep
from stair_jax.training.loop import TrainingRun, train
from stair_jax.training.objectives import SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings
from stair_jax.training.step import abstract_state

ROOT = Path(__file__).parents[2]
CONFIG = tiny_config(initializer_range=0.02, tie_word_embeddings=True)
NUM_STEPS = 16


class SlowBatches(Batches):
    """Slows the steps down, so that there is time to kill the process."""

    def __getitem__(self, index):
        time.sleep(0.2)
        return super().__getitem__(index)


def make_run(folder, kind=Batches, num_groups=NUM_STEPS * 4 - 1):
    """A run of NUM_STEPS steps with a checkpoint every 4; the last batch is not full."""
    rng = np.random.default_rng(0)
    groups = []
    for number in range(num_groups):
        length = int(rng.integers(4, 13))
        example = Example(rng.integers(0, 40, length).tolist(), [0] + [1] * (length - 1))
        groups.append(Group(f"g{number}", (example,)))
    settings = TrainingSettings(learning_rate=1e-2)
    batches = kind(groups, 4, 16, 2)
    return TrainingRun(
        name="test",
        folder=Path(folder),
        objective=SftObjective(CONFIG),
        optimizer=make_optimizer(settings, len(batches)),
        batches=batches,
        mesh=make_mesh(),
        checkpoint_every=4,
    )


def train_run(run, **options):
    return train(run, init_params(CONFIG, jax.random.key(0)), logical_axes(CONFIG), **options)


def main(folder):
    """Body of the process to kill."""
    train_run(make_run(folder, SlowBatches))


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(params):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


def start_and_stop(folder, after, number):
    """Runs `main` in a new process, and sends a signal when step `after` has been logged.

    A checkpoint is on disk by then. Returns the exit code.
    """
    code = f"import runpy; runpy.run_path({__file__!r})['main']({str(folder)!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        metrics = folder / "metrics.jsonl"
        while not (
            metrics.exists() and f'"step": {after},' in metrics.read_text() and saved(folder)
        ):
            assert process.poll() is None, "the process ended before it was stopped"
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait()


def saved(folder):
    """Steps of the complete checkpoints, by their folder names."""
    return sorted(int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit())


@pytest.mark.distributed
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL, and then SIGTERM, which saves after the current step."""
    assert start_and_stop(tmp_path / "killed", 5, signal.SIGKILL) == -signal.SIGKILL
    before = len(metrics_of(tmp_path / "killed"))
    assert start_and_stop(tmp_path / "killed", 9, signal.SIGTERM) == -signal.SIGTERM
    (notice,) = saved(tmp_path / "killed")
    assert before <= 9 < notice == len(metrics_of(tmp_path / "killed"))
    steps = []
    resumed = train_run(
        make_run(tmp_path / "killed"), inspect=lambda step, values: steps.append(step)
    )
    whole = train_run(make_run(tmp_path / "whole"))
    assert steps == list(range(notice, NUM_STEPS))
    assert bits(resumed) == bits(whole)
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")
    assert len(metrics_of(tmp_path / "whole")) == NUM_STEPS
    assert bits(whole) != bits(init_params(CONFIG, jax.random.key(0)))


def test_a_notice_before_the_first_step_ends_the_run_there(tmp_path, monkeypatch):
    """While the state is put on the devices; nothing is saved, and the next run starts anew."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    begin = loop._start

    def begin_and_be_told(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(*arguments)

    try:
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="told to stop"):
            patch.setattr(loop, "_start", begin_and_be_told)
            train_run(make_run(tmp_path))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert metrics_of(tmp_path) == saved(tmp_path) == []
    train_run(make_run(tmp_path))
    assert len(metrics_of(tmp_path)) == NUM_STEPS


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = bits(train_run(make_run(tmp_path)))
    steps = []
    again = train_run(make_run(tmp_path), inspect=lambda step, values: steps.append(step))
    assert steps == [] and bits(again) == first


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = make_run(tmp_path)

    class Broken(Batches):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            if index == 5:
                batch.arrays["micro"]["weights"][0, 0, 0] = np.nan
            return batch

    broken = make_run(tmp_path, Broken)
    with pytest.raises(UserError, match=r"loss is nan at step 5, .*nonfinite.json"):
        train_run(broken)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert sorted(chain(*found["micro_batches"])) == ["g20", "g21", "g22", "g23"]
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(5))
    # The checkpoint is that of the last finite step, and a corrected run resumes from it.
    steps = []
    train_run(run, inspect=lambda step, values: steps.append(step))
    assert steps == list(range(4, NUM_STEPS))


def newest_data_file(folder):
    """The largest file of the newest checkpoint, which holds parameters or moments."""
    newest = folder / "checkpoints" / str(max(saved(folder)))
    return max(newest.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, halve, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    tmp_path, capsys, monkeypatch, damage
):
    """The run ends with the weights and the metrics of an undisturbed one."""
    monkeypatch.setattr(hashes, "_SMALL", 0)  # as for the large files of a real model
    run = dataclasses.replace(make_run(tmp_path), keep=Keep(newest=2))
    whole, metrics = bits(train_run(run)), metrics_of(tmp_path)
    file = newest_data_file(tmp_path)
    damage(file)
    steps = []
    resumed = train_run(run, inspect=lambda step, values: steps.append(step))
    assert steps == list(range(12, NUM_STEPS))
    assert bits(resumed) == whole and metrics_of(tmp_path) == metrics
    said = capsys.readouterr().err
    assert f"checkpoints/16 is damaged ({file.relative_to(tmp_path / 'checkpoints/16')} " in said
    assert (tmp_path / "checkpoints" / "16.damaged").is_dir() and saved(tmp_path) == [12, 16]


def test_a_damaged_checkpoint_beside_no_other_is_an_error_each_time(tmp_path):
    train_run(make_run(tmp_path))
    flip(newest_data_file(tmp_path))
    for _ in range(2):
        with pytest.raises(UserError, match=r"checkpoints/16 is damaged \(.* as it was written\)"):
            train_run(make_run(tmp_path))
    assert saved(tmp_path) == [NUM_STEPS]


def test_a_damaged_checkpoint_without_hashes_gives_way_to_the_one_before(tmp_path, capsys):
    """One of an earlier version: Orbax finds a part of what can be damaged."""
    run = dataclasses.replace(make_run(tmp_path), keep=Keep(newest=2))
    whole = bits(train_run(run))
    for file in (tmp_path / "checkpoints").rglob("hashes.*"):
        file.unlink()
    assert bits(train_run(run)) == whole
    assert "checkpoints/16 cannot be checked for damage: it has no" in capsys.readouterr().err
    halve(newest_data_file(tmp_path))
    assert bits(train_run(run)) == whole
    assert "checkpoints/16 is damaged (it cannot be read)" in capsys.readouterr().err


def test_the_best_checkpoint_has_no_other_in_its_place(tmp_path):
    run = dataclasses.replace(make_run(tmp_path), keep=Keep(best="grad_norm", use_best=True))
    train_run(run)
    best = min(saved(tmp_path))
    assert best != NUM_STEPS
    flip(max((tmp_path / "checkpoints" / str(best)).rglob("d/*"), key=lambda f: f.stat().st_size))
    with pytest.raises(UserError, match=f"checkpoints/{best} is damaged .* no other can take"):
        train_run(run)


def test_a_run_is_lengthened_from_its_end_only(tmp_path):
    """The steps behind an earlier checkpoint were done by the former schedule."""
    run = dataclasses.replace(make_run(tmp_path), keep=Keep(newest=2))
    train_run(run)
    flip(newest_data_file(tmp_path))
    longer = make_run(tmp_path, num_groups=2 * NUM_STEPS * 4)
    longer = dataclasses.replace(longer, is_lengthened=True, keep=Keep(newest=2))
    with pytest.raises(UserError, match=r"step 12 .* is not that of the end of the former run"):
        train_run(longer)


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    run = make_run(tmp_path)
    train_run(run)
    about = json.loads((tmp_path / "checkpoints" / "16" / "about" / "metadata").read_text())
    assert about["step"] == NUM_STEPS and about["data"] == run.batches.state(NUM_STEPS)
    assert about["metrics"] == {
        name: value for name, value in metrics_of(tmp_path)[-1].items() if name != "step"
    }
    assert about["versions"]["jax"] == jax.__version__


def test_other_data_and_settings_are_named(tmp_path):
    train_run(make_run(tmp_path))
    with pytest.raises(UserError, match=r"of step 16 in .* another data \(examples was 63, now 59"):
        train_run(make_run(tmp_path, num_groups=59))
    run = make_run(tmp_path)
    changed = make_optimizer(TrainingSettings(learning_rate=2e-2), len(run.batches))
    with pytest.raises(UserError, match=r"another schedule \(peak was 0.01, now 0.02\)"):
        train_run(dataclasses.replace(run, optimizer=changed))


def test_checkpoints_by_the_clock(tmp_path, monkeypatch):
    """A minute passes in each step: saved after every third one, and after the last."""
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    run = dataclasses.replace(
        make_run(tmp_path), checkpoint_every=0, checkpoint_minutes=3, keep=Keep(newest=100)
    )
    train_run(run)
    assert saved(tmp_path) == [3, 6, 9, 12, 15, 16]
    shutil.rmtree(tmp_path / "checkpoints")
    train_run(dataclasses.replace(run, checkpoint_minutes=0))
    assert saved(tmp_path) == []


def test_a_run_ends_with_its_best_checkpoint_where_it_is_told_to(tmp_path):
    """Also if it is started again when all of its steps are done."""
    keep = Keep(best="grad_norm", use_best=True)
    run = dataclasses.replace(make_run(tmp_path), keep=keep)
    chosen = bits(train_run(run))
    norms = {line["step"] + 1: line["grad_norm"] for line in metrics_of(tmp_path)}
    best = min((4, 8, 12, 16), key=norms.__getitem__)
    assert best != NUM_STEPS and saved(tmp_path) == [best, NUM_STEPS]
    assert bits(train_run(run)) == chosen
    last = bits(train_run(dataclasses.replace(run, keep=Keep(best="grad_norm"))))
    assert chosen != last
    shutil.rmtree(tmp_path / "checkpoints" / str(NUM_STEPS))
    like = init_params(CONFIG, jax.random.key(0))
    shapes = abstract_state(like, logical_axes(CONFIG), run.optimizer.tx, run.mesh)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert bits(checkpoints.restore(shapes)[0].params) == chosen


def test_an_error_of_a_save_ends_the_run_within_a_step(tmp_path, monkeypatch):
    """Once the disk has room again, the run resumes from the previous checkpoint."""
    import orbax.checkpoint as ocp

    save = ocp.JsonCheckpointHandler._save_fn

    async def fail(self, about, directory):
        if about["step"] == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return await save(self, about, directory)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the disk is full"):
        patch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fail)
        train_run(make_run(tmp_path, SlowBatches))
    assert saved(tmp_path) == [4] and 8 <= len(metrics_of(tmp_path)) < 12
    steps = []
    train_run(make_run(tmp_path), inspect=lambda step, values: steps.append(step))
    assert steps == list(range(4, NUM_STEPS))
