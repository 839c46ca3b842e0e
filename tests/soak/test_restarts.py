"""Interrupted runs: a correct command passes, and each fault of a command is found."""

import signal
import textwrap

import pytest

from soak.command import Command
from soak.restarts import Moment, Restarts
from soak.result import Result

pytestmark = pytest.mark.distributed

# Grows four trees, one at a time, then writes a table.
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
        if FAULT == "ignores the signal":
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
    """A command with a fault; by default with none."""
    script = folder / f"{fault}.py"
    script.write_text(textwrap.dedent(RUN.format(fault=fault)))
    return Command((str(script),), folder / "compiled")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The working folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command_of(folder).finish(folder / "run")
    return folder / "run"


@pytest.fixture
def soak_of(tmp_path, undisturbed):
    """A function that interrupts runs with a given fault, each once it has a tree."""

    def soak(fault, number=signal.SIGTERM, times=1):
        def condition(run):
            path = run.workdir / "search/trees.jsonl.gz"
            return "starts" in run.output() and path.exists() and path.stat().st_size > 0

        result = Result("kills")
        moments = [Moment(number, condition, "at a tree", seed=9)] * times
        Restarts(command_of(tmp_path, fault), undisturbed, tmp_path, result, patience=20).run(
            moments
        )
        return result

    return soak


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_resumes_correctly_has_no_failure(soak_of, number):
    result = soak_of("", number, times=2)
    assert result.failures == []
    assert result.counts["stops"] == result.counts["in search"] == 2
    assert result.counts[signal.Signals(number).name] == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("loses trees", "trees were lost: 0"),
        ("depends on the restart", "differs from the undisturbed run: search/table.json differs"),
        ("keeps the lock", "the working folder is still locked after all processes have ended"),
        ("ignores the signal", "the signal was ignored: the run continued to its end"),
        ("silent", "process 0 did not end with the line that the same command goes on"),
        ("wrong status", "process 0 exited with 1, not 143"),
        ("traceback", "process 0 printed a traceback"),
    ],
)
def test_a_fault_is_found(soak_of, fault, said):
    result = soak_of(fault)
    assert any(said in failure.what for failure in result.failures), result.failures
    assert "--size 1 --seed 9" in result.failures[0].reproduce
    assert "SIGTERM to process 0 at a tree" in result.failures[0].reproduce


def test_a_moment_that_is_not_reached_is_counted_and_skipped(tmp_path, undisturbed):
    result = Result("kills")
    never = Moment(signal.SIGKILL, lambda run: False, "never")
    Restarts(command_of(tmp_path), undisturbed, tmp_path, result).run([never])
    assert result.counts["not reached"] == 1 and result.failures == []
