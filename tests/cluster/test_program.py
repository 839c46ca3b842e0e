"""A program of a process a machine: watched, stopped, and started again where it lost one."""

import os
import signal
import subprocess
import sys
import time

import pytest

from stair_jax.cluster import program as programs
from stair_jax.cluster.host import HostLost, Look
from stair_jax.cluster.hosts import ThisMachine
from stair_jax.cluster.program import Program, run_program
from stair_jax.errors import UserError
from stair_jax.stopping import Stopped, StopSignals

LOST = "stair_jax: process 1 of 2 is lost (killed, or its machine is down): the same command goes"
LOST += " on where it stopped"


class FakeHost:
    """A machine whose process says and does what is written down."""

    def __init__(self, name, *looks):
        self.name, self._looks = name, list(looks)
        self.words, self.environment, self.signals = None, None, []

    def free_port(self):
        return 1234

    def start(self, words, environment, folder):
        self.words, self.environment = words, environment

    def look(self):
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, Exception):
            raise look
        return look

    def send(self, number):
        self.signals.append(number)
        self._looks = [Look(["saved"], 128 + number)]


class FakeHosts:
    """Machines of one attempt after another."""

    def __init__(self, *attempts):
        self.attempts, self.taken, self.asked = list(attempts), 0, []

    def are_there(self, count):
        return True

    def take(self, count):
        self.asked.append(count)
        self.taken += 1
        return self.attempts[self.taken - 1]

    def give_back(self):
        self.given_back = self.taken


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(programs, "_PAUSE", 0.001)


def run(hosts, marks=(), count=0):
    marks = iter(marks)
    run_program(Program("sft", ["train"], lambda: next(marks, None), count), hosts)


def test_processes_find_each_other_and_the_first_one_speaks(capsys):
    done = Look(["done"], 0)
    first, second = FakeHost("10.0.0.1", Look(["step 1"]), done), FakeHost("10.0.0.2", done)
    hosts = FakeHosts([first, second])
    run(hosts, count=2)
    together = ["train", "--coordinator=10.0.0.1:1234", "--num_processes=2"]
    assert first.words == [*together, "--process_id=0"]
    assert second.words == [*together, "--process_id=1"]
    assert first.environment == second.environment and len(first.environment["STAIR_TOKEN"]) == 64
    assert capsys.readouterr().err.splitlines() == ["step 1", "done"]
    assert hosts.asked == [2] and hosts.given_back == 1


def test_one_machine_has_an_ordinary_process():
    host = FakeHost("a", Look((), 0))
    run(FakeHosts([host]))
    assert (host.words, host.environment) == (["train"], {})


@pytest.mark.parametrize(
    "second", [Look((), -9), HostLost("the machine b is lost")], ids=["killed", "vanished"]
)
def test_what_lost_a_process_starts_again_on_the_machines_that_are_there(second, capsys):
    alone = FakeHost("a", Look((), 0))
    run(FakeHosts([FakeHost("a", Look((), None), Look([LOST], 4)), FakeHost("b", second)], [alone]))
    assert alone.words == ["train"]
    said = capsys.readouterr().err
    assert "sft: process 1 of 2 is lost (killed, or its machine is down); it starts again" in said
    assert said.count("process 1 of 2") == 1


def test_a_process_that_hangs_behind_the_end_of_another_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(programs, "_GRACE", 0.01)
    hosts = FakeHosts(
        [FakeHost("a", Look()), FakeHost("b", Look((), -9))], [FakeHost("a", Look((), 0))]
    )
    run(hosts)
    assert hosts.given_back == 2


def test_a_program_that_gets_nowhere_ends_the_run():
    lost = [FakeHost("a", Look((), -9))]
    hosts = FakeHosts(*[lost] * 9)
    with pytest.raises(UserError, match=r"sft: ended 3 times .* ended by signal 9; a machine may"):
        run(hosts, marks=[0, 1, 1, 2, 2, 2, 2])  # new checkpoints in the first and third attempt
    assert hosts.taken == 6


def test_a_mistake_of_the_user_is_that_of_the_run():
    said = "stair_jax: process 1 of 2: error: stage sft: the mesh does not fit"
    other = FakeHost("a", Look(["stair_jax: process 1 of 2 failed: error"], 4))
    with pytest.raises(UserError, match=r"^stage sft: the mesh does not fit$"):
        run(FakeHosts([other, FakeHost("b", Look([said], 2))]))


def test_a_fault_is_told_with_what_was_said_before():
    lines = ["Traceback ...", "KeyError: 7", "stair_jax: process 1 of 2: KeyError: 7"]
    repeated = ["stair_jax: process 1 of 2 failed: KeyError: 7"]
    with pytest.raises(RuntimeError, match=r"process 1 of sft on b failed(?s:.*)Traceback"):
        run(FakeHosts([FakeHost("a", Look(repeated, 1)), FakeHost("b", Look(lines, 1))]))


def test_a_signal_lets_all_processes_save(monkeypatch, capsys):
    hosts = [FakeHost("a", Look()), FakeHost("b", Look())]

    def heed():
        monkeypatch.setattr(programs, "heed", lambda: None)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(programs, "heed", heed)
    with pytest.raises(Stopped):
        run(FakeHosts(hosts))
    assert [host.signals for host in hosts] == [[signal.SIGTERM]] * 2
    assert capsys.readouterr().err == "saved\n"


# From here on with processes, but without JAX.
SAVES = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("at work", flush=True)
time.sleep(600)
"""
DRIVER = f"""
from stair_jax.cluster.hosts import ThisMachine
from stair_jax.cluster.program import Program, run_program
run_program(Program("x", ["-c", {SAVES!r}], lambda: 0), ThisMachine())
"""


def test_a_process_that_was_killed_goes_on_where_it_stopped(tmp_path, capsys):
    """The second start finds what the first one has left."""
    path = tmp_path / "checkpoint"
    script = (
        f"import os, pathlib; p = pathlib.Path({str(path)!r}); there = p.exists(); p.touch()\n"
        "print('goes on' if there else 'begins', flush=True)\n"
        "there or os.kill(os.getpid(), 9)"
    )
    run_program(Program("sft", ["-c", script], path.exists), ThisMachine())
    assert capsys.readouterr().err.splitlines() == [
        "begins",
        "sft: process 0 was ended by signal 9; it starts again on the machines that are there",
        "goes on",
    ]


def test_a_process_saves_when_its_driver_is_told_to_stop(capsys):
    hosts = _Interrupting(ThisMachine())
    with StopSignals(), pytest.raises(Stopped):
        run_program(Program("x", ["-c", SAVES], lambda: 0), hosts)
    assert capsys.readouterr().err == "saved\n"


class _Interrupting:
    """Tells this process to stop as soon as the one that it has started is at work."""

    def __init__(self, hosts):
        self._hosts = hosts
        self.give_back = hosts.give_back

    def take(self, count):
        (host,) = self._hosts.take(count)
        look = host.look

        def seen():
            found = look()
            if "at work" in found.lines:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        host.look = seen
        return [host]


def test_a_driver_that_is_killed_leaves_no_process():
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stderr=subprocess.PIPE, text=True)
    assert driver.stderr.readline() == "at work\n"
    children = _children(driver.pid)
    assert len(children) == 1
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    while any(map(_is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(parent):
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(word) for word in file.read().split()]


def _is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
