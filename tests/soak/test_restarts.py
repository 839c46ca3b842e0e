"""Runs that are stopped again and again: what is in order, and each fault that is found."""

import signal
import textwrap

import pytest

from soak.command import Command
from soak.restarts import Moment, Restarts
from soak.result import Result

pytestmark = pytest.mark.distributed

# Grows four trees, one at a time, then writes a table. FAULT is one of the tests below.
RUN = """
    import fcntl, gzip, json, os, pathlib, signal, sys, time
    FAULT = {fault!r}
    workdir = pathlib.Path(sys.argv[-1].partition("=")[2])
    folder = workdir / "search"
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(workdir / ".lock", "a+")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if FAULT == "keeps the lock":
        os.set_inheritable(lock.fileno(), True)
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "3"])

    def leave(number, frame):
        if FAULT == "does not heed":
            return
        if FAULT == "traceback":
            raise ValueError
        if FAULT != "silent":
            print("stair_jax: terminated: the same command goes on where it stopped", flush=True)
        sys.exit(1 if FAULT == "wrong status" else 128 + number)

    signal.signal(signal.SIGTERM, leave)
    path = folder / "trees.jsonl.gz"
    done = len(gzip.open(path).readlines()) if path.exists() else 0
    if FAULT == "loses trees":
        path.unlink(missing_ok=True)
    print("[1 of 1] search: starts", flush=True)
    for number in range(done, 4):
        tree = json.dumps(dict(id=str(number), seconds=time.time()))
        with path.open("ab") as file:
            file.write(gzip.compress(tree.encode() + b"\\n"))
        time.sleep(0.1)
    table = done if FAULT == "depends on the restart" else 4
    (folder / "table.json").write_text(str(table))
    (folder / "speed.jsonl").write_text(str(time.time()))
    print("[1 of 1] search: done in 1 s", flush=True)
"""


def command_of(folder, fault=""):
    """A command that has a fault."""
    script = folder / f"{fault}.py"
    script.write_text(textwrap.dedent(RUN.format(fault=fault)))
    return Command((str(script),), folder / "compiled")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run that was left alone."""
    folder = tmp_path_factory.mktemp("calm")
    command_of(folder).finish(folder / "run")
    return folder / "run"


@pytest.fixture
def soak_of(tmp_path, calm):
    """A function of a fault: what is found when that run is sent a signal once it has a tree."""

    def soak(fault, number=signal.SIGTERM, times=1):
        def is_time(run):
            path = run.workdir / "search/trees.jsonl.gz"
            return "starts" in run.said() and path.exists() and path.stat().st_size > 0

        result = Result("kills")
        moments = [Moment(number, is_time, "at a tree", seed=9)] * times
        Restarts(command_of(tmp_path, fault), calm, tmp_path, result, patience=20).run(moments)
        return result

    return soak


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_goes_on_as_it_should_has_no_failure(soak_of, number):
    result = soak_of("", number, times=2)
    assert result.failures == []
    assert result.counts["stops"] == result.counts["in search"] == 2
    assert result.counts[signal.Signals(number).name] == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("loses trees", "trees were lost: 0"),
        ("depends on the restart", "not as when left alone: search/table.json differs"),
        ("keeps the lock", "the folder is still locked by a process that has ended"),
        ("does not heed", "the signal was not heeded: the run went on to its end"),
        ("silent", "process 0 did not end with a line that says how to go on"),
        ("wrong status", "process 0 ended with 1, not 143"),
        ("traceback", "process 0 ended with a traceback"),
    ],
)
def test_a_fault_is_found(soak_of, fault, said):
    result = soak_of(fault)
    assert any(said in failure.what for failure in result.failures), result.failures
    assert "--size 1 --seed 9" in result.failures[0].reproduce
    assert "SIGTERM to process 0 at a tree" in result.failures[0].reproduce


def test_a_moment_that_never_comes_is_counted_and_left_out(tmp_path, calm):
    result = Result("kills")
    never = Moment(signal.SIGKILL, lambda run: False, "never")
    Restarts(command_of(tmp_path), calm, tmp_path, result).run([never])
    assert result.counts["never came"] == 1 and result.failures == []
