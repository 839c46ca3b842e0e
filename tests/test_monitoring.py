"""Metrics go on after a resume without steps twice; progress speaks of rate and time left."""

import json

import pytest

from stair_jax import monitoring
from stair_jax.monitoring import Metrics, Progress


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Clock:
    """A clock that tests set."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(monitoring.time, "monotonic", lambda: self.now)


def test_metrics_as_json_lines_and_events(tmp_path):
    with Metrics(tmp_path) as metrics:
        metrics.write(1, {"loss": 0.5})
        metrics.write(2, {"loss": float("nan")})
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]
    assert len(list(tmp_path.glob("events.out.*"))) == 1


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in range(1, 6):
            metrics.write(step, {"loss": step})
    with Metrics(tmp_path, resume_step=3) as metrics:
        metrics.write(4, {"loss": 40})
    assert [(row["step"], row["loss"]) for row in lines(tmp_path)] == [
        (1, 1), (2, 2), (3, 3), (4, 40),
    ]  # fmt: skip
    Metrics(tmp_path, resume_step=-1).close()
    assert lines(tmp_path) == []


def test_a_torn_last_line_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    with Metrics(tmp_path) as metrics:
        metrics.write(2, {"loss": 2.0})
    assert [row["step"] for row in lines(tmp_path)] == [1, 2]


def test_progress_is_silent_between_its_lines(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress("search1", 100, "trees", done=20)
    assert capsys.readouterr().err == "search1: goes on at 20 of 100 trees\n"
    clock.now = 4.0
    progress.update(30)
    assert capsys.readouterr().err == ""
    clock.now = 10.0
    progress.update(40, value=0.123456, depth=3)
    assert capsys.readouterr().err == (
        "search1: 40 of 100 trees, 2 trees/s, 30.0 s left (value 0.1235, depth 3)\n"
    )
    clock.now = 100.0
    progress.update(100)
    capsys.readouterr()
    progress.close()
    assert capsys.readouterr().err == (
        "search1: 100 of 100 trees in 1 min 40 s, 1.25 s each (value 0.1235, depth 3)\n"
    )


def test_progress_before_the_first_unit(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress("sft", 10, "steps")
    clock.now = 6.0
    progress.update(0)
    assert capsys.readouterr().err == "sft: 0 of 10 steps, 6.0 s so far\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (59.9, "59.9 s"), (187, "3 min 07 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert monitoring.duration(seconds) == text
