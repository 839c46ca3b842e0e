"""Logged metrics and speed against hand-computed values, with a fake clock and fake chips."""

import json
import threading
from concurrent.futures import Future
from itertools import chain
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stair_jax import monitoring
from stair_jax.errors import UserError
from stair_jax.models.flops import micro_training_flops
from stair_jax.monitoring import Metrics, Progress
from stair_jax.parallel.mesh import make_mesh
from stair_jax.training import metrics as module
from stair_jax.training.batches import Batches
from stair_jax.training.completions import Completions
from stair_jax.training.metrics import StepMetrics, Throughput
from stair_jax.training.objectives import PrmObjective, SftObjective

NUM_DEVICES = 4


class FakeCompletions:
    """Steps that are done when the test says so: `at` seconds after they were dispatched."""

    def __init__(self):
        self.now, self.at, self.compiled = 100.0, 0.0, 0.0

    def clock(self):
        return self.now

    def compile_seconds(self):
        return self.compiled

    def watch(self, values):
        completed = Future()
        completed.set_result(self.now + self.at)
        return completed

    def throughput(self, objective, mesh):
        """What measures the steps by this clock."""
        return Throughput(objective, mesh, self, self.compile_seconds)


@pytest.fixture
def clock(monkeypatch):
    """A fake clock of steps and of progress: `clock.now` in seconds."""
    fake = FakeCompletions()
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: fake.now)
    return fake


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
        clock.throughput(SftObjective(config), chips),
        inspect=lambda step, found: seen.append((step, found["loss"])),
    )
    step_metrics.add(0, batches[0], 0.1, values(loss=1.5))
    assert seen == []
    clock.now += 2.0
    step_metrics.add(1, batches[1], 0.2, values(loss=1.25))
    assert seen == [(0, 1.5)]
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

    (speed,) = lines(tmp_path / "speed.jsonl")  # only the second step
    flops = micro_training_flops(config, batches[1].arrays["micro"])
    assert speed == {
        "step": 1,
        "seconds": 2.0,
        "tokens_per_second": batches[1].num_tokens / 2,
        "mfu": pytest.approx(flops / (2 * NUM_DEVICES * 1000)),
    }


def test_saves_and_compilation_are_no_part_of_a_steps_time(tmp_path, config, batches, clock, chips):
    """Each step takes 2 s; the first compiles for 50 s, and a save of 300 s is behind step 1."""
    batch = batches[0]
    step_metrics = make_metrics(tmp_path, clock.throughput(SftObjective(config), chips))
    clock.at = 2.0
    for step in range(4):
        if step in (0, 3):  # another shape compiles later
            clock.now += 50.0
            clock.compiled += 50.0
        step_metrics.add(step, batch, 0.1, values())
        clock.now += 2.0
        if step == 1:
            with step_metrics.pause("save", step):
                clock.now += 300.0
    step_metrics.flush()
    rate = {
        "seconds": 2.0,
        "tokens_per_second": batch.num_tokens / 2,
        "mfu": pytest.approx(
            micro_training_flops(config, batch.arrays["micro"]) / (2 * NUM_DEVICES * 1000)
        ),
    }
    assert lines(tmp_path / "speed.jsonl") == [
        {"step": 0, "compile_seconds": 50.0},
        {"step": 1, **rate},
        {"step": 1, "save_seconds": 300.0},
        {"step": 2, **rate},
        {"step": 3, "compile_seconds": 50.0},
    ]
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3]


def test_compilation_in_a_pause_is_told_apart(tmp_path, config, batches, clock, chips):
    step_metrics = make_metrics(tmp_path, clock.throughput(SftObjective(config), chips))
    step_metrics.add(0, batches[0], 0.1, values())
    with step_metrics.pause("eval", 0):
        clock.now += 30.0
        clock.compiled += 20.0
    found = lines(tmp_path / "speed.jsonl")
    assert found == [{"step": 0, "eval_seconds": 10.0, "compile_seconds": 20.0}]


def test_reading_a_step_late_does_not_make_the_next_one_fast(
    tmp_path, config, batches, clock, chips
):
    """The host reads the last two steps at once; each took 4 s, as their completions say."""
    batch = batches[0]
    step_metrics = make_metrics(tmp_path, clock.throughput(SftObjective(config), chips))
    for step in range(3):
        clock.now += 4.0
        step_metrics.add(step, batch, 0.1, values())
    clock.now += 100.0
    step_metrics.flush()
    assert [line["seconds"] for line in lines(tmp_path / "speed.jsonl")] == [4.0, 4.0]


def test_short_steps_have_a_rate_once_they_took_a_second_together(config, batches, clock, chips):
    speed = clock.throughput(SftObjective(config), chips)
    found = [speed.measure(batches[0], 100 + 0.25 * number) for number in range(7)]
    assert found[0] == {} and [set(one) for one in found[1:4]] == [{"seconds"}] * 3
    tokens = batches[0].num_tokens
    assert [one["tokens_per_second"] for one in found[4:]] == [tokens / 0.25] * 3
    assert speed.measure(batches[0], 103.5)["tokens_per_second"] == tokens / 2  # of the 2 s alone


def test_progress_counts_neither_the_first_step_nor_saves_in_its_rate(
    tmp_path, config, batches, clock, chips, capsys
):
    """The first of 4 steps takes 100 s, the others 10 s; a save of 20 s stands behind the second.

    The time left is that of the steps to come with as many saves as there were.
    """
    progress = Progress("test", 4, "steps", outside=clock.compile_seconds)
    speed = clock.throughput(SftObjective(config), chips)
    step_metrics = StepMetrics(tmp_path, Metrics(tmp_path), progress, speed)
    said = []
    for step, seconds in enumerate((100.0, 10.0, 10.0)):
        step_metrics.add(step, batches[0], 0.1, values())
        clock.now += seconds
        step_metrics.flush()
        said.append(capsys.readouterr().err.partition(" (")[0].strip())
        if step == 1:
            with step_metrics.pause("save", step):
                clock.now += 20.0
    assert said == [
        "test: 1 of 4 steps, 1 min 40 s so far",
        "test: 2 of 4 steps, 10 s each, 20.0 s left",
        "test: 3 of 4 steps, 10 s each, 20.0 s left",
    ]


def test_the_completion_of_values_is_seen_while_nobody_reads_them():
    class Values:
        """Values that are computed when the test says so."""

        def __init__(self):
            self.computed = threading.Event()

        def block_until_ready(self):
            self.computed.wait()
            return self

    now = iter([1.0, 2.0])
    completions = Completions(clock=lambda: next(now))
    first, second = Values(), Values()
    times = [completions.watch({"loss": one}) for one in (first, second)]
    assert not times[0].done()
    second.computed.set()
    first.computed.set()
    assert [time.result(60) for time in times] == [1.0, 2.0]
    completions.close()


def test_values_that_fail_have_a_completion_too():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("out of memory")

    completions = Completions(clock=lambda: 3.0)
    assert completions.watch(Failed()).result(60) == 3.0
    completions.close()


def test_scores_need_no_logits_and_rows_of_one_process_stand_for_all(config, batches, clock, chips):
    """A process with one of two rows counts the FLOPs of its row twice."""
    batch = batches[0]
    found = {}
    for objective in (SftObjective(config), PrmObjective(config)):
        speed = clock.throughput(objective, chips)
        assert speed.measure(batch, 1.0) == {}
        found[type(objective)] = speed.measure(batch, 2.0)["mfu"]
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
        speed = clock.throughput(PrmObjective(config), chips)
        speed.measure(own, 1.0)
        mfu += speed.measure(own, 2.0)["mfu"] / 2
    assert mfu == pytest.approx(found[PrmObjective])


def test_without_a_known_peak_there_is_no_mfu(config, batches, clock):
    speed = clock.throughput(SftObjective(config), make_mesh())
    speed.measure(batches[0], 1.0)
    tokens = batches[0].num_tokens
    assert speed.measure(batches[0], 3.0) == {"seconds": 2.0, "tokens_per_second": tokens / 2}


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_the_examples_of_a_step_that_is_not_finite_are_written_down(
    tmp_path, config, batches, clock, name
):
    broken = {"loss": {"loss": np.nan}, "grad_norm": {"norm": np.inf}}[name]
    step_metrics = make_metrics(tmp_path, clock.throughput(SftObjective(config), make_mesh()))
    step_metrics.add(1, batches[1], 0.1, values(**broken, margin=3.0))
    with pytest.raises(UserError, match=rf"{name} is (nan|inf) at step 1, .*nonfinite.json"):
        step_metrics.flush()
    assert lines(tmp_path / "metrics.jsonl") == []
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["step"], found["margin"], found[name]) == (1, 3.0, None)
    names = {number: f"g{number}" for number in range(4, 8)}
    assert found["micro_batches"] == [[names[n] for n in micro] for micro in batches[1].members]
    assert sorted(chain(*found["micro_batches"])) == ["g4", "g5", "g6", "g7"]


def test_a_metric_to_keep_by_that_does_not_exist_is_named(tmp_path, config, batches, clock):
    step_metrics = make_metrics(
        tmp_path, clock.throughput(SftObjective(config), make_mesh()), best="accurcy"
    )
    with pytest.raises(UserError, match=r"keep_best is 'accurcy': .* did you mean accuracy"):
        step_metrics.add(0, batches[0], 0.1, values(accuracy=1.0))
