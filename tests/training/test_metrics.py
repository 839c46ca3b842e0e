"""Logged metrics and speed against hand-computed values, with a fake clock and fake chips."""

import json
from itertools import chain
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.models.flops import micro_training_flops
from stair_jax.monitoring import Metrics, Progress
from stair_jax.parallel.mesh import make_mesh
from stair_jax.training import metrics as module
from stair_jax.training.batches import Batches
from stair_jax.training.metrics import StepMetrics, Throughput
from stair_jax.training.objectives import PrmObjective, SftObjective

NUM_DEVICES = 4


@pytest.fixture
def clock(monkeypatch):
    """A fake clock: `clock.now` in seconds."""
    state = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: state.now))
    return state


@pytest.fixture
def chips(monkeypatch):
    """A mesh of chips with a peak of 1000 FLOP/s."""
    monkeypatch.setattr(module, "device_chip", lambda device: SimpleNamespace(flops=1000.0))
    devices = SimpleNamespace(flat=[None], size=NUM_DEVICES)
    return SimpleNamespace(devices=devices)


@pytest.fixture
def batches(make_groups):
    return Batches(make_groups(10), batch_size=4, length=16, rows=2)


def make_metrics(folder, speed, **options):
    metrics = Metrics(folder)
    return StepMetrics(folder, metrics, Progress("test", 3, "steps"), speed, **options)


def values(loss=1.0, norm=2.0, **others):
    return {
        name: jax.numpy.float32(value)
        for name, value in {"loss": loss, "grad_norm": norm, **others}.items()
    }


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_is_read_when_the_next_one_is_under_way(tmp_path, config, batches, clock, chips):
    seen = []
    step_metrics = make_metrics(
        tmp_path,
        Throughput(SftObjective(config), chips),
        inspect=lambda step, found: seen.append((step, found["loss"])),
    )
    step_metrics.add(0, batches[0], 0.1, values(loss=1.5))
    assert seen == []
    step_metrics.add(1, batches[1], 0.2, values(loss=1.25))
    assert seen == [(0, 1.5)]
    clock.now += 2.0
    flushed = step_metrics.flush()
    assert seen == [(0, 1.5), (1, 1.25)] and flushed["loss"] == 1.25
    assert step_metrics.flush() == {}

    written = lines(tmp_path / "metrics.jsonl")
    assert [line["learning_rate"] for line in written] == [0.1, 0.2]
    for line, batch in zip(written, (batches[0], batches[1]), strict=True):
        micro = batch.arrays["micro"]["segment_ids"]
        assert line["tokens"] == np.count_nonzero(micro)
        places = len(batch.members) * 2 * 16
        assert line["padding"] == pytest.approx(1 - line["tokens"] / places)

    (speed,) = lines(tmp_path / "speed.jsonl")  # only the second step: the first one compiles
    flops = micro_training_flops(config, batches[1].arrays["micro"])
    assert speed == {
        "step": 1,
        "seconds": 2.0,
        "tokens_per_second": batches[1].num_tokens / 2,
        "mfu": pytest.approx(flops / (2 * NUM_DEVICES * 1000)),
    }


def test_scores_need_no_logits_and_rows_of_one_process_stand_for_all(config, batches, clock, chips):
    """A process with one of two rows counts the FLOPs of its row twice."""
    batch = batches[0]
    found = {}
    for objective in (SftObjective(config), PrmObjective(config)):
        speed = Throughput(objective, chips)
        assert speed.measure(batch) == {}
        clock.now += 1.0
        found[type(objective)] = speed.measure(batch)["mfu"]
    micro = batch.arrays["micro"]
    whole = micro_training_flops(config, micro, head=False)
    assert found[PrmObjective] == pytest.approx(whole / (NUM_DEVICES * 1000))
    assert found[PrmObjective] < found[SftObjective]

    mfu = 0.0
    for row in range(2):
        part = {name: array[:, row : row + 1] for name, array in micro.items() if array.ndim == 3}
        own = SimpleNamespace(
            arrays={"count": batch.arrays["count"], "micro": part}, num_rows=2, num_tokens=1
        )
        speed = Throughput(PrmObjective(config), chips)
        speed.measure(own)
        clock.now += 1.0
        mfu += speed.measure(own)["mfu"] / 2
    assert mfu == pytest.approx(found[PrmObjective])


def test_without_a_known_peak_there_is_no_mfu(config, batches, clock):
    speed = Throughput(SftObjective(config), make_mesh())
    speed.measure(batches[0])
    clock.now += 0.5
    tokens = batches[0].num_tokens
    assert speed.measure(batches[0]) == {"seconds": 0.5, "tokens_per_second": tokens / 0.5}


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_the_examples_of_a_step_that_is_not_finite_are_written_down(
    tmp_path, config, batches, name
):
    broken = {"loss": {"loss": np.nan}, "grad_norm": {"norm": np.inf}}[name]
    step_metrics = make_metrics(tmp_path, Throughput(SftObjective(config), make_mesh()))
    step_metrics.add(1, batches[1], 0.1, values(**broken, margin=3.0))
    with pytest.raises(UserError, match=rf"{name} is (nan|inf) at step 1, .*nonfinite.json"):
        step_metrics.flush()
    assert lines(tmp_path / "metrics.jsonl") == []
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["step"], found["margin"], found[name]) == (1, 3.0, None)
    names = {number: f"g{number}" for number in range(4, 8)}
    assert found["micro_batches"] == [[names[n] for n in micro] for micro in batches[1].members]
    assert sorted(chain(*found["micro_batches"])) == ["g4", "g5", "g6", "g7"]


def test_a_metric_to_keep_by_that_does_not_exist_is_named(tmp_path, config, batches):
    step_metrics = make_metrics(
        tmp_path, Throughput(SftObjective(config), make_mesh()), best="accurcy"
    )
    with pytest.raises(UserError, match=r"keep_best is 'accurcy': .* did you mean accuracy"):
        step_metrics.add(0, batches[0], 0.1, values(accuracy=1.0))
