"""Metrics have each step once after a resume; progress lines show rate and time left."""

import json
import struct
import sys
from types import SimpleNamespace

import pytest
from tensorboardX.proto import event_pb2

from stair_jax import monitoring
from stair_jax.errors import UserError
from stair_jax.monitoring import Metrics, Progress
from stair_jax.samples import Sample


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Clock:
    """A fake clock that tests can set."""

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


def test_what_the_clock_decides_has_a_file_of_its_own(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in range(3):
            metrics.write(step, {"loss": step}, {"seconds": 2.0 + step} if step else None)
    with Metrics(tmp_path, resume_step=1) as metrics:
        metrics.write(2, {"loss": 5}, {"seconds": 9.0})
    assert lines(tmp_path)[-1] == {"step": 2, "loss": 5.0}
    speeds = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert speeds == [{"step": 1, "seconds": 3.0}, {"step": 2, "seconds": 9.0}]


def test_a_line_of_seconds_alone_is_none_of_the_metrics(tmp_path):
    with Metrics(tmp_path) as metrics:
        metrics.write(3, {}, {"save_seconds": 2.0})
    assert lines(tmp_path) == []
    assert json.loads((tmp_path / "speed.jsonl").read_text()) == {"step": 3, "save_seconds": 2.0}


def tensorboard_records(path):
    """The records of a file of events: length, checksum, data, checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield data[place + 12 : place + 12 + length]
        place += length + 16


def texts_of(folder, last=99):
    """The texts in TensorBoard's events by tag, those of the last step up to `last`."""
    (path,) = folder.glob("events.out.*")
    found = {}
    for record in tensorboard_records(path):
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value if event.step <= last else ():
            found[value.tag] = value.tensor.string_val[0].decode()
    return found


def test_samples_are_written_once_and_said_in_a_line(tmp_path, capsys):
    folder = tmp_path / "dpo"
    with Metrics(folder) as metrics:
        for step in (4, 8):
            metrics.write_samples(
                step, [Sample("pair", {"chosen": "Yes.\nNo."}, {"margin": 0.5 * step})]
            )
        metrics.write_samples(9, [Sample(what, {}, {}) for what in ("tree", "pair", "pair")])
    assert capsys.readouterr().err.splitlines() == [
        r"dpo: sample of step 4, pair: chosen 'Yes.\nNo.'; margin 2",
        r"dpo: sample of step 8, pair: chosen 'Yes.\nNo.'; margin 4",
        "dpo: sample of step 9, tree: ",
        "dpo: sample of step 9, pair: ",
        "dpo: sample of step 9, pair: ",
    ]
    tags = {f"samples/{tag}/text_summary" for tag in ("tree", "pair", "pair_2")}
    assert set(texts_of(folder)) == tags
    assert "    Yes.\n    No." in texts_of(folder, 8)["samples/pair/text_summary"]
    with Metrics(folder, resume_step=4) as metrics:
        metrics.write_samples(8, [Sample("pair", {}, {"margin": float("nan"), "kl": None})])
    written = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert written == [
        {"step": 4, "sample": "pair", "chosen": "Yes.\nNo.", "margin": 2.0},
        {"step": 8, "sample": "pair", "margin": None, "kl": None},
    ]


def test_a_silent_process_writes_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    with Metrics(tmp_path / "stage", silent=True) as metrics:
        metrics.write(1, {"loss": 0.5}, {"seconds": 1.0})
        metrics.write_samples(1, [Sample("answer", {"text": "Yes."})])
    clock = Clock(monkeypatch)
    progress = Progress("sft", 10, "steps", done=2, silent=True)
    clock.now = 60.0
    progress.update(5)
    progress.close()
    assert not (tmp_path / "stage").exists()
    assert capsys.readouterr().err == ""


class FakeWandb:
    """A fake `wandb` package; `runs` records what was started and logged."""

    def __init__(self):
        self.runs = []

    Html = staticmethod(lambda text: ("html", text))

    def init(self, **options):
        """A run that records its calls."""
        run = SimpleNamespace(options=options, logged=[], is_finished=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda: setattr(run, "is_finished", True)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    return fake


def test_wandb_gets_the_metrics_and_goes_on_with_its_run(tmp_path, wandb):
    folder = tmp_path / "run" / "sft"
    for resume_step in (-1, 0, -1):
        with Metrics(folder, resume_step=resume_step) as metrics:
            metrics.write(resume_step + 1, {"loss": 0.5}, {"mfu": 0.25})
    first, resumed, anew = wandb.runs
    assert first.logged == [(0, {"loss": 0.5, "mfu": 0.25})] and first.is_finished
    assert first.options["project"] == "ours" and first.options["name"] == "run/sft"
    assert resumed.options["id"] == first.options["id"] != anew.options["id"]


def test_wandb_shows_a_sample_as_text_and_not_as_markup(tmp_path, wandb):
    with Metrics(tmp_path) as metrics:
        metrics.write_samples(2, [Sample("answer", {"text": "<script>x</script>"}, {"value": 1.0})])
    ((step, logged),) = wandb.runs[0].logged
    kind, page = logged["samples/answer"]
    assert step == 2 and kind == "html"
    assert "<script>" not in page and "&lt;script&gt;x&lt;/script&gt;" in page


def test_wandb_is_left_alone_unless_a_project_is_named(tmp_path, wandb, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT")
    with Metrics(tmp_path) as metrics:
        metrics.write(1, {"loss": 0.5})
    assert wandb.runs == []


def test_wandb_that_is_missing_or_fails_is_one_line(tmp_path, wandb, monkeypatch):
    def fail(**options):
        raise RuntimeError("no API key")

    wandb.init = fail
    with pytest.raises(UserError, match="Weights & Biases cannot be used: no API key: see"):
        Metrics(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match="WANDB_PROJECT is set, but wandb is not installed: pip inst"
    ):
        Metrics(tmp_path)


def test_progress_is_silent_between_its_lines(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    progress = Progress("search1", 100, "trees", done=20)
    assert capsys.readouterr().err == "search1: resuming at 20 of 100 trees\n"
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


def test_the_time_left_counts_no_compilation(monkeypatch, capsys):
    """60 of the first 70 seconds are the compiler's: the 9 trees to come take 90."""
    clock, compiled = Clock(monkeypatch), [5.0]
    progress = Progress("search1", 10, "trees", outside=lambda: compiled[0])
    clock.now, compiled[0] = 70.0, 65.0
    progress.update(1)
    said = "search1: 1 of 10 trees, 10 s each, 1 min 30 s left\n"
    assert capsys.readouterr().err == said


def test_time_left_and_rate_of_units_that_are_done_in_parts(monkeypatch, capsys):
    """2 of 5 trees of 8 parts were there before; 12 of the other 24 parts took 6 s."""
    clock = Clock(monkeypatch)
    progress = Progress("search1", 5, "trees", done=2, parts=("iterations", 8))
    capsys.readouterr()
    clock.now = 5.0
    progress.update(2, done_parts=0)
    assert capsys.readouterr().err == ("search1: 2 of 5 trees, 16 of 40 iterations, 5.0 s so far\n")
    clock.now = 10.0
    progress.update(2, done_parts=12, judgements=9)
    assert capsys.readouterr().err == (
        "search1: 2 of 5 trees, 28 of 40 iterations, 1.2 iterations/s, 10.0 s left (judgements 9)\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (59.9, "59.9 s"), (187, "3 min 07 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert monitoring.duration(seconds) == text
