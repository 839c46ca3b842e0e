"""A Ray cluster whose machines come and go, in a network namespace of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import pytest

from soak import workers
from soak.command import ROOT, Command
from stair_jax.record_log import RecordLog
from stair_jax.run.stage_times import read_times

pytest.importorskip("ray", reason="Ray is not installed")
if not os.environ.get("STAIR_JAX_RAY"):
    pytest.skip("takes minutes: set STAIR_JAX_RAY=1", allow_module_level=True)
pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OVERRIDES = workers.OVERRIDES | {
    "stages": ("pocket:data", "model:base", "search:search1"),
    "search1.model": "base",
    "pocket.num_search": 500,
}
BETWEEN_SEARCHES = workers.OVERRIDES | {
    "stages": ("pocket:data", "model:base", "search:search1", "sft", "search:search2"),
    "search1.model": "base",
    "search2.model": "sft",
    "search2.file": "prompts1.jsonl",
    "runtime.training_mesh.data": -1,
    "pocket.num_search": 4,
    "sft.checkpoint_every": 2,
}
_UP = "ip link set lo up"
_SECONDS = 480


@pytest.fixture
def namespace():
    """Arguments in front of a command, which then sees a network with nothing but loopback."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare or ip is not installed")
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"{_UP} && echo up && sleep 900"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    if not holder.stdout.readline():
        pytest.skip("no network namespace may be made here")
    yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    holder.kill()
    holder.wait()


class Cluster:
    """Machines of a Ray cluster, each a process group, and a run on them."""

    def __init__(self, namespace, folder):
        self.namespace, self.folder = namespace, folder
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
            "XLA_FLAGS": "",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.started = []
        self.short = tempfile.mkdtemp(prefix="ray")  # names of sockets may have 107 characters

    def start(self, words, log):
        with (self.folder / log).open("w") as file:
            process = subprocess.Popen(
                [*self.namespace, *words],
                env=self.environment,
                cwd=ROOT,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def machine(self, *words):
        memory = "--object-store-memory=80000000"
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", memory]
        return self.start([*ray, *words], f"machine{len(self.started)}.log")

    def head(self):
        flags = ("--head", "--port=6399", "--num-cpus=0", "--include-dashboard=false")
        return self.machine(*flags, f"--temp-dir={self.short}")

    def join(self):
        return self.machine("--address=127.0.0.1:6399", "--num-cpus=1")

    def has_joined(self, number):
        return "will now block forever" in (self.folder / f"machine{number}.log").read_text()

    def output(self):
        return (self.folder / "run.log").read_text(errors="replace")

    def run(self, arguments, workdir):
        words = [sys.executable, *arguments, f"--workdir={workdir}"]
        return self.start([*words, "--cluster=ray://127.0.0.1:6399"], "run.log")

    def kill(self, process):
        """With all that it started, at once."""
        for each in [process.pid, *workers.descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait()

    def close(self):
        for process in self.started:
            if process.poll() is None:
                self.kill(process)
        shutil.rmtree(self.short, ignore_errors=True)


@pytest.fixture
def cluster(namespace, tmp_path):
    found = Cluster(namespace, tmp_path)
    yield found
    found.close()


def records(workdir):
    """Of the trees that are on the disk."""
    return list(RecordLog(workdir / workers.TREES))


def searched_by(workdir):
    """The worker of each tree that is on the disk."""
    return {record["id"]: record["worker"] for record in records(workdir)}


def wait_for(condition, process):
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_machines_join_and_vanish_and_so_does_the_head(cluster, tmp_path):
    alone = Command.of_config("configs/pocket.py", tmp_path / "compiled", OVERRIDES)
    alone.finish(tmp_path / "alone")
    workdir = tmp_path / "run"
    for stage in ("data", "base"):
        shutil.copytree(tmp_path / "alone" / stage, workdir / stage)

    def trees():
        return searched_by(workdir)

    head, first = cluster.head(), cluster.join()
    run = cluster.run(alone.arguments, workdir)
    wait_for(trees, run)
    cluster.join()
    wait_for(lambda: (tmp_path / "run.log").read_text().count(" is ready") == 2, run)
    ready = time.monotonic()
    (done,) = set(trees().values())
    wait_for(lambda: set(trees().values()) - {done}, run)
    took = max(record["seconds"] for record in records(workdir) if record["worker"] != done)
    waited = time.monotonic() - took - ready
    print(f"a worker that joined got work {waited:.2f} s after it was ready")
    assert waited < 5.0
    cluster.kill(first)
    count = len(trees())
    wait_for(lambda: len(trees()) > count, run)
    for process in (run, head):
        cluster.kill(process)
    kept = trees()
    cluster.close()
    cluster.head(), cluster.join()
    again = cluster.run(alone.arguments, workdir)
    assert again.wait(_SECONDS) == 0
    assert kept.items() <= trees().items()
    expected = workers.read_trees(tmp_path / "alone" / workers.TREES)
    assert workers.read_trees(workdir / workers.TREES) == expected


def test_machines_train_between_two_searches_and_one_of_them_vanishes(cluster, tmp_path):
    workdir = tmp_path / "run"
    arguments = Command.of_config("configs/pocket.py", tmp_path, BETWEEN_SEARCHES).arguments
    cluster.head()
    for number in (1, 2):  # two at once would not start
        second = cluster.join()
        wait_for(lambda number=number: cluster.has_joined(number), second)
    run = cluster.run(arguments, workdir)
    wait_for((workdir / "sft" / "checkpoints" / "2").is_dir, run)
    cluster.kill(second)
    is_lost = re.compile(r"sft: (process [01] of 2|the machine .*) is lost")  # by the ids of Ray
    wait_for(lambda: is_lost.search(cluster.output()), run)
    cluster.join()
    assert run.wait(_SECONDS) == 0
    assert (workdir / "sft" / "complete.json").exists()
    assert len(workers.read_trees(workdir / "search2" / "trees.jsonl.gz")) == 4
    (first,) = read_times(workdir / "base")
    assert first.devices == 2
