"""A queue of jobs: with processes and a clock of our own, and with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stair_jax.errors import UserError
from stair_jax.run import job_process
from stair_jax.run.job_list import Job, by_name, chosen, in_order, path_seconds
from stair_jax.run.job_places import Place, free_place, make_places, take_turns
from stair_jax.run.job_queue import JobQueue

CPU = Place("cpu", "cpu")


class Host:
    """Processes that take their jobs' seconds by a clock that moves when the queue sleeps."""

    def __init__(self, folder, status=(), seconds=()):
        self.now, self.folder = 0.0, folder
        self.status, self.seconds = dict(status), dict(seconds)
        self.began, self.ended, self.told = {}, {}, []

    def start(self, command, place, log):
        name = command[1]
        self.began[name] = self.now
        return Running(self, name, self.now + self.seconds.get(name, 10.0))

    def sleep(self, seconds):
        self.now = round(self.now + 1.0)

    def run(self, jobs, places=(CPU, CPU), **more):
        self.queue = JobQueue(
            by_name(jobs),
            places,
            ["program"],
            self.folder,
            start=self.start,
            clock=lambda: self.now,
            sleep=self.sleep,
            **more,
        )
        return self.queue.run()


class Running:
    def __init__(self, host, name, end):
        self.host, self.name, self.end, self.result = host, name, end, None

    def poll(self):
        if self.result is None and self.host.now >= self.end:
            self.result = self.host.status.get(self.name, 0)
            self.host.ended[self.name] = self.host.now
        return self.result

    def send(self, number):
        self.host.told.append(self.name)
        self.result = 128 + number

    def kill(self):
        self.result = -9


@pytest.fixture
def make(tmp_path):
    """`make(name, ...)`: a job whose product is there as soon as it is made."""

    def make_job(name, **more):
        product = tmp_path / "products" / name
        product.parent.mkdir(parents=True, exist_ok=True)
        product.touch()
        return Job(name, [name], product, **{"seconds": 10.0} | more)

    return make_job


def test_a_job_starts_when_all_that_it_needs_is_done(make, tmp_path):
    host = Host(tmp_path)
    jobs = [make("a"), make("b"), make("c", after=["a", "b"]), make("d", after=["a"])]
    outcome = host.run(jobs)
    assert set(outcome.done) == {"a", "b", "c", "d"}
    assert host.began["a"] == host.began["b"] == 0
    assert min(host.began["c"], host.began["d"]) >= max(host.ended["a"], host.ended["b"])


def test_a_file_of_a_job_that_runs_may_be_enough_and_is_also_where_that_job_fails(make, tmp_path):
    early, never = tmp_path / "early", tmp_path / "never"
    host = Host(tmp_path, seconds={"a": 30.0, "b": 10.0}, status={"a": 2, "e": 2})
    tick = host.sleep
    host.sleep = lambda seconds: (tick(seconds), host.now == 20 and early.touch())
    jobs = [
        make("a"),
        make("b", after=["a"], enough={"a": early}),
        make("c", after=["a"], enough={"a": never}),
        make("d", behind=["a"], enough={"a": early}),
        make("e", after=["b"]),
    ]
    outcome = host.run(jobs, (CPU,) * 3)
    assert host.began["b"] == host.began["d"] == 20 < host.ended["a"] == 30
    assert outcome.skipped == {"c": "a"} and set(outcome.failed) == {"a", "e"}
    assert set(outcome.done) == {"b", "d"}


def test_no_more_jobs_run_than_there_are_places(make, tmp_path):
    host = Host(tmp_path)
    host.run([make(f"j{i}") for i in range(7)])
    times = [(host.began[name], host.ended[name]) for name in host.began]
    assert max(sum(b <= t < e for b, e in times) for t, _ in times) == 2


def test_a_failure_skips_those_that_need_it_and_no_others(make, tmp_path, capsys):
    host = Host(tmp_path, status={"a": 2})
    jobs = [
        make("a"),
        make("b", after=["a"]),
        make("c", after=["b"]),
        make("d", behind=["a"]),
        make("e"),
    ]
    path = tmp_path / "a.log"
    path.write_text("a start\nerror: the trees give no pair\n\n")
    outcome = host.run(jobs)
    assert outcome.failed == {"a": "error: the trees give no pair"}
    assert outcome.skipped == {"b": "a", "c": "a"}
    assert set(outcome.done) == {"d", "e"}
    assert host.began["d"] >= host.ended["a"]
    assert "skipped, as a failed: b, c" in capsys.readouterr().err


def test_what_is_done_is_not_run_again_unless_its_words_or_product_changed(make, tmp_path):
    Host(tmp_path).run([make("a"), make("b"), make("c")])
    b, c = make("b"), make("c")
    changed = Job("b", ["b", "--more"], b.product)
    c.product.unlink()
    again = Host(tmp_path)
    again.run([make("a"), changed, c])
    assert set(again.began) == {"b", "c"}


def test_late_words_are_read_when_the_job_starts(make, tmp_path):
    seen, told = [], []
    first = make("a")
    second = make("b", after=["a"], late=lambda: told)
    host = Host(tmp_path)
    start = host.start

    def record(command, place, log):
        seen.append(command)
        told[:] = ["--chosen"]
        return start(command, place, log)

    host.start = record
    host.run([first, second])
    assert seen == [["program", "a"], ["program", "b", "--chosen"]]
    record = json.loads((tmp_path / "b.ended.json").read_text())
    assert record["words"] == ["b", "--chosen"]


def test_nothing_starts_that_would_not_end_in_time_and_the_rest_is_stopped(make, tmp_path):
    host = Host(tmp_path, seconds={"slow": 100})
    jobs = [make("a"), make("slow", seconds=25.0), make("b", after=["a"]), make("c", after=["b"])]
    outcome = host.run(jobs, seconds=28.0)
    # c would end at 30 at the earliest; slow was expected to end and did not.
    assert set(outcome.done) == {"a", "b"}
    assert host.told == ["slow"] and host.now <= 30
    assert not outcome.failed and set(outcome.left) == {"slow", "c"}


def test_a_job_longer_than_all_the_time_is_started_and_saves(make, tmp_path):
    host = Host(tmp_path, seconds={"long": 100})
    outcome = host.run([make("long", seconds=100.0)], seconds=30.0)
    assert host.told == ["long"] and outcome.left == ["long"]


def test_the_time_that_is_left_follows_the_pace_of_what_is_done(make, tmp_path, capsys):
    """Two places, jobs of 10 s that take 20: after the first two, 4 jobs more are 40 s."""
    host = Host(tmp_path, seconds={f"j{i}": 20 for i in range(6)})
    host.run([make(f"j{i}") for i in range(6)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "done in" in line]
    assert lines[1].endswith("0 running, 4 waiting, about 40.0 s left")


def test_the_seconds_of_a_job_are_those_of_all_its_starts(make, tmp_path):
    """30 s until the time was up, then 20 s more: 50, by which the next of its kind is judged."""
    Host(tmp_path, seconds={"long": 50}).run([make("long", seconds=100.0)], seconds=30.0)
    host = Host(tmp_path, seconds={"long": 20})
    assert host.run([make("long", seconds=100.0)]).done == {"long": 50}
    assert Host(tmp_path).run([make("long", seconds=100.0)]).done == {"long": 50}


def test_a_job_waits_for_an_earlier_process_of_its_own(make, tmp_path):
    host = Host(tmp_path)
    start = host.start
    host.start = lambda *args: None if host.now < 5 else start(*args)
    assert set(host.run([make("a")]).done) == {"a"}
    assert host.began["a"] == 5


def test_jobs_of_low_rank_go_first_then_those_on_the_longest_path(make):
    jobs = by_name(
        [
            make("long", rank=1, seconds=100.0),
            make("base", rank=1, seconds=5.0),
            make("short", rank=0, seconds=5.0),
            make("wanted", rank=0, seconds=50.0, after=["base"]),
        ]
    )
    assert path_seconds(jobs) == {"long": 100, "base": 55, "short": 5, "wanted": 50}
    assert in_order(jobs) == ["base", "wanted", "short", "long"]


def test_parts_and_patterns_bring_what_they_need(make):
    jobs = by_name(
        [
            make("0/sft", part="arms"),
            make("1/sft", part="arms"),
            make("dev/x", part="dev", after=["0/sft"]),
            make("choice", part="dev", behind=["dev/x"]),
        ]
    )
    assert list(chosen(jobs, ["dev"])) == ["0/sft", "dev/x", "choice"]
    assert list(chosen(jobs, [], ["1/*"])) == ["1/sft"]
    with pytest.raises(UserError, match="no job has such a name"):
        chosen(jobs, ["arms"], ["dev/*"])
    with pytest.raises(UserError, match="no such part"):
        chosen(jobs, ["arm"])


def test_places_share_gpus_and_cores():
    places = make_places(["2", "5"], 4, 0.84, 2, range(32))
    gpu = [place for place in places if place.kind == "gpu"]
    cpu = [place for place in places if place.kind == "cpu"]
    assert [place.device for place in gpu] == ["gpu 2", "gpu 5"] * 4
    assert gpu[0].environment == {
        "CUDA_VISIBLE_DEVICES": "2",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.21",
    }
    assert cpu[0].environment["JAX_PLATFORMS"] == "cpu"
    assert [place.cores for place in cpu] == [frozenset(range(3)), frozenset(range(3, 6))]
    assert {place.cores for place in gpu} == {frozenset(range(6, 32))}
    without = make_places(["2"], 4, 0.84, 2, ())
    assert not any(place.cores for place in without)
    # The next job goes where fewer run; jobs of GPUs run on CPUs where there is none.
    assert free_place("gpu", places[1:], places) == places[1]
    alone = make_places([], 4, 0.84, 2, range(2))
    assert [place.kind for place in alone] == ["cpu", "cpu"]
    assert not any(place.cores for place in alone)
    assert free_place("gpu", alone, alone) == alone[0]
    assert free_place("gpu", cpu, places) is None


# A queue of two children in a process of its own: each counts its starts, waits for a file, and
# writes its product; asked to stop, it saves first.
QUEUE = """
import sys
from pathlib import Path
from stair_jax.launch import Session
from stair_jax.run.job_list import Job, by_name
from stair_jax.run.job_places import Place
from stair_jax.run.job_queue import JobQueue
from stair_jax.stopping import StopSignals

folder = Path(sys.argv[1])
jobs = by_name([
    Job("a", ["a"], folder / "a.product", place="cpu"),
    Job("b", ["b"], folder / "b.product", place="cpu", after=["a"]),
])
with StopSignals() as signals:
    try:
        program = [sys.executable, "-c", (folder / "child.py").read_text(), str(folder)]
        done = JobQueue(jobs, [Place("cpu", "cpu")], program, folder / "logs").run().done
        print(sorted(done))
    except KeyboardInterrupt:
        sys.exit(Session(signals).end_by_signal())
"""
CHILD = """
import signal, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]

def stop(number, frame):
    time.sleep(0.3)
    with open(folder / "saved", "a") as file: file.write(name)
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
with open(folder / "starts", "a") as file: file.write(name)
while name == "b" and not (folder / "go").exists(): time.sleep(0.02)
(folder / f"{name}.product").touch()
"""


def wait_for(path, text):
    end = time.monotonic() + 60
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < end, path.read_text() if path.exists() else path
        time.sleep(0.02)


def start_queue(folder):
    (folder / "child.py").write_text(CHILD)
    environment = os.environ | {"PYTHONPATH": str(Path(job_process.__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", QUEUE, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.distributed
def test_a_queue_goes_on_after_a_kill_and_hands_signals_to_what_runs(tmp_path):
    killed = start_queue(tmp_path)
    wait_for(tmp_path / "starts", "ab")
    killed.kill()
    killed.communicate()
    wait_for(tmp_path / "saved", "b")  # it was asked to stop by the system

    stopped = start_queue(tmp_path)
    wait_for(tmp_path / "starts", "abb")
    stopped.send_signal(signal.SIGTERM)  # SIGINT may be ignored, where tests run in the background
    _, said = stopped.communicate()
    assert stopped.returncode == 143
    assert "jobs: 2, of which 1 done, 1 to run" in said and "terminated" in said
    assert (tmp_path / "saved").read_text() == "bb"  # once each

    (tmp_path / "go").touch()
    last = start_queue(tmp_path)
    printed, _ = last.communicate()
    assert printed.strip() == "['a', 'b']" and last.returncode == 0
    assert (tmp_path / "starts").read_text() == "abbb"
    assert (tmp_path / "logs/b.log").read_text().count("$ ") == 3


def test_jobs_take_turns_on_a_gpu_unless_mps_has_its_pipe(tmp_path):
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert take_turns(environment)
    (tmp_path / "control").touch()
    assert not take_turns(environment)
