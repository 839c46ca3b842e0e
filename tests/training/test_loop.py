import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from stair_jax.data.packing import Example
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel.mesh import make_mesh
from stair_jax.training.batches import Batches, Group
from stair_jax.training.loop import Run, train
from stair_jax.training.objectives import SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    tie_word_embeddings=True,
)
NUM_STEPS = 12


class SlowBatches(Batches):
    """Leaves time to be killed."""

    def __getitem__(self, index):
        time.sleep(0.2)
        return super().__getitem__(index)


def make_run(folder, kind=Batches, num_groups=NUM_STEPS * 4 - 1):
    """A run of NUM_STEPS steps, with a checkpoint every 4; the last batch is not full."""
    rng = np.random.default_rng(0)
    groups = []
    for number in range(num_groups):
        length = int(rng.integers(4, 13))
        example = Example(rng.integers(0, 40, length).tolist(), [0] + [1] * (length - 1))
        groups.append(Group(f"g{number}", (example,)))
    settings = TrainingSettings(learning_rate=1e-2)
    batches = kind(groups, 4, 16, 2)
    return Run(
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
    """What the killed process does."""
    train_run(make_run(folder, SlowBatches))


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(params):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


def start_and_kill(folder, after):
    """Runs `main` in a process of its own, and kills it when step `after` has been written."""
    code = f"import runpy; runpy.run_path({__file__!r})['main']({str(folder)!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and f'"step": {after},' in metrics.read_text()):
            assert process.poll() is None, "the process ended before it was killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    start_and_kill(tmp_path / "killed", after=6)
    steps = []
    resumed = train_run(
        make_run(tmp_path / "killed"), inspect=lambda step, values: steps.append(step)
    )
    whole = train_run(make_run(tmp_path / "whole"))
    assert steps[0] in (4, 8) and steps[-1] == NUM_STEPS - 1
    assert bits(resumed) == bits(whole)
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")
    assert len(metrics_of(tmp_path / "whole")) == NUM_STEPS
    assert bits(whole) != bits(init_params(CONFIG, jax.random.key(0)))


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
    with pytest.raises(UserError, match=r"loss is nan at step 5 \(examples g20, g21, g22, g23\)"):
        train_run(broken)
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(5))
    # The checkpoint is the one from before, and a mended run goes on from it.
    steps = []
    train_run(run, inspect=lambda step, values: steps.append(step))
    assert steps == list(range(4, NUM_STEPS))


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path):
    train_run(dataclasses.replace(make_run(tmp_path, num_groups=8), checkpoint_every=1))
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file() and "metadata" not in file.name.lower():
            file.write_bytes(b"")
    with pytest.raises(UserError, match="checkpoints cannot be read"):
        train_run(make_run(tmp_path, num_groups=8))
