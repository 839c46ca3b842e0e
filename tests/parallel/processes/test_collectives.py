"""Rendezvous, collectives and watchdog of the processes of a run."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stair_jax.commands.flags import make_parser, read_arguments
from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.parallel.processes.cluster import Cluster, add_flags, read_flags, slurm_devices
from stair_jax.parallel.processes.collectives import LostProcess
from stair_jax.parallel.processes.credentials import read_token
from stair_jax.parallel.processes.hello import Member
from stair_jax.parallel.processes.rendezvous import meet
from stair_jax.parallel.processes.tls import check_tls

ROOT = Path(__file__).parents[3]


def test_one_process_waits_for_nobody():
    assert (collectives.num_processes(), collectives.process_index()) == (1, 0)
    assert collectives.is_main()
    collectives.barrier("nothing", seconds=0.0)
    assert collectives.gather("nothing", [1, "a"]) == [[1, "a"]]
    value = {"a": (1, 2)}
    assert collectives.broadcast(value) is value
    assert not collectives.reached_stop(3)


def test_a_stop_that_can_no_longer_be_asked_for_is_none_that_fails(monkeypatch):
    """Process 0 may have left by the same signal before another one hears of it."""
    asked = []

    class Gone:
        def key_value_set(self, key, value, allow_overwrite):
            asked.append(key)
            raise RuntimeError("UNAVAILABLE: Connection reset by peer")

    monkeypatch.setattr(collectives, "_state", lambda: SimpleNamespace(client=Gone()))
    collectives.request_stop()
    assert asked == ["RECEIVED_PREEMPTION_NOTICE"]


def test_the_module_imports_nothing_that_is_slow():
    code = (
        "import sys; from stair_jax.parallel.processes import collectives; "
        "collectives.barrier('a'); "
        "print({'jax', 'numpy', 'absl'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout == "set()\n"


def read_cluster(flags):
    """The processes that the flags of a command name; None: one alone."""
    return read_flags(read_arguments(make_parser("run", "", add_flags), flags.split()).options)


@pytest.mark.parametrize(
    ("flags", "cluster"),
    [
        ("", None),
        ("--start_timeout=5", None),
        ("--distributed", Cluster()),
        ("--config.seed=2 --distributed --heartbeat_timeout 60", Cluster(heartbeat_timeout=60)),
        (
            "--coordinator=[::1]:80 --num_processes=4 --config.seed 2 --process_id=3",
            Cluster("[::1]:80", 4, 3),
        ),
    ],
)
def test_flags_alone_make_a_run_of_several_processes(flags, cluster):
    assert read_cluster(flags) == cluster


@pytest.mark.parametrize("token", ["x", "0123456789abcde"])
def test_a_token_that_can_be_guessed_is_refused(monkeypatch, token):
    monkeypatch.setenv("STAIR_TOKEN", token)
    with pytest.raises(UserError, match=r"STAIR_TOKEN has .* at least 16") as caught:
        read_token()
    assert repr(token) not in str(caught.value)


def test_the_token_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("STAIR_TOKEN", "0123456789abcdef")
    assert read_token() == "0123456789abcdef"
    monkeypatch.delenv("STAIR_TOKEN")
    assert read_token() == ""


def test_tls_that_would_not_be_is_refused(tmp_path):
    names = [f"JAX_MTLS_{name}_FILE" for name in ("CERT", "KEY", "CA")]
    files = {name: str(tmp_path / name) for name in names}
    for path in files.values():
        Path(path).touch()
    check_tls({}, False, "0.10.2")
    check_tls(files, True, "0.12.0")
    with pytest.raises(UserError, match=r"ask for TLS, which jax 0\.10\.2 does not have"):
        check_tls(files, False, "0.10.2")
    for name in names:
        with pytest.raises(UserError, match=f"{name} is '': TLS needs a file here"):
            check_tls({other: files[other] for other in names if other != name}, True, "0.12.0")


def test_an_address_of_ipv6_has_its_host_in_brackets():
    assert Member("[::1]:80", 4, 3).address == ("::1", 80)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--coordinator=a:1", "--num_processes, --process_id is missing"),
        ("--num_processes=2 --process_id=0", "--coordinator is missing"),
        ("--coordinator=a --num_processes=2 --process_id=0", "must be host:port of process 0"),
        ("--coordinator=a:1 --num_processes=2 --process_id=2", "must be from 0 to 1"),
        ("--coordinator=a:1 --num_processes=0 --process_id=0", "--num_processes is 0"),
        ("--coordinator=a:1 --num_processes=65537 --process_id=0", "must be from 1 to 65536"),
        ("--coordinator=a:0 --num_processes=2 --process_id=0", "must be host:port of process 0"),
        ("--coordinator=a:65536 --num_processes=2 --process_id=0", "must be host:port of proc"),
        ("--distributed --heartbeat_timeout=99999999999", "must be from 1 to 2678400 seconds"),
        (
            "--coordinator=a:1 --num_processes=x --process_id=0",
            "--num_processes: invalid int value: 'x'",
        ),
        ("--coordinator=a:1 --num_processes", "--num_processes: expected one argument"),
        ("--num_process=2", "no flag --num_process: did you mean --num_processes"),
        ("--distributed --process_id=0", "--distributed finds out what --process_id says"),
        ("--distributed --start_timeout=0", "--start_timeout is 0"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(flags, said):
    with pytest.raises(UserError, match=said) as caught:
        read_cluster(flags)
    assert "\n" not in str(caught.value)


def test_without_a_cluster_the_flag_is_a_mistake_of_the_user():
    command = ["--config=configs/pocket.py", "--workdir=/nowhere/w"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "KUBERNETES_", "OMPI_", "TPU_", "JAX_COORDINATOR"))
    }
    result = subprocess.run(
        [sys.executable, "-m", "stair_jax.launch", "--distributed", *command],
        cwd=ROOT,
        env=environment | {"TPU_SKIP_MDS_QUERY": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("stair_jax: error: --distributed found no TPU slice, SLURM or")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("tasks", "gpus", "devices"),
    [
        ("1(x4)", "8", list(range(8))),
        ("1", "2", [0, 1]),
        ("8(x4)", "8", None),
        ("1(x4)", "", None),
        ("2,1", "2", None),
    ],
)
def test_a_slurm_task_that_has_a_node_for_itself_gets_all_its_gpus(tasks, gpus, devices):
    environment = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": gpus}
    assert slurm_devices(environment) == devices
    assert slurm_devices(environment | {"JAX_LOCAL_DEVICE_IDS": "0"}) is None


def test_all_come_and_process_0_has_a_line_to_each(free_address, come):
    address = free_address()
    first, second, third = come([Member(address, 3, index) for index in (0, 1, 2)], 20.0)
    assert set(first) == {1, 2} and set(second) == set(third) == {0}
    first[2].sendall(b"x")
    assert third[0].recv(1) == b"x"
    for connections in (first, second, third):
        for connection in connections.values():
            connection.close()


def test_who_does_not_come_to_the_start_is_named_to_all_who_did(free_address, come):
    address = free_address()
    errors = come([Member(address, 4, 0), Member(address, 4, 2)], 1.0)
    said = "processes 1, 3 of 4 did not come to the start within 1 s"
    assert [str(error) for error in errors] == [said] * 2
    assert {type(error) for error in errors} == {LostProcess}
    (error,) = come([Member(address, 4, 1)], 0.5)
    assert str(error).startswith(f"process 0 of 4 was not there at {address} within 0 s")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ((3, 1), "process 1 was started with --num_processes=3, process 0 with --num_processes=2"),
        ((2, 1), None),
    ],
)
def test_command_lines_that_contradict_each_other_are_named(free_address, come, second, said):
    address = free_address()
    first, other = come([Member(address, 2, 0), Member(address, *second)], 20.0)
    if said is None:
        assert set(first) == {1} and set(other) == {0}
    else:
        assert str(first) == str(other) == said and type(other) is UserError


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"process 0 cannot listen at port {port}"):
            meet(Member(f"127.0.0.1:{port}", 2, 0), 1.0)


PEERS = """
import os, sys, time
from stair_jax.parallel.processes.watchdog import Watchdog
from stair_jax.parallel.processes.hello import Member
from stair_jax.parallel.processes.rendezvous import meet
address, index, act = sys.argv[1:]
member = Member(address, 3, int(index))
peers = Watchdog(member, meet(member, 60.0))
if index == "1":
    if act == "failed":
        peers.leave(2, "no such file")
    if act == "stopped":
        peers.leave(143, "terminated")
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("act", "status", "said"),
    [
        ("lost", 4, "process 1 of 3 is lost (killed, or its machine is down): the same command"),
        ("failed", 2, "process 1 of 3 failed: no such file"),
        ("stopped", -signal.SIGTERM, ""),
    ],
)
def test_the_end_of_one_process_ends_all(free_address, act, status, said):
    address = free_address()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PEERS, address, str(index), act],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    results = [process.communicate(timeout=50)[1] for process in processes]
    assert [processes[index].returncode for index in (0, 2)] == [status] * 2, results
    assert all(said in results[index] for index in (0, 2))


MEETINGS = """
import os, sys
import jax
jax.config.update("jax_platforms", "cpu")
from stair_jax.parallel.processes import collectives
from stair_jax.parallel.processes.cluster import Cluster, join
address, index = sys.argv[1:]
peers = join(Cluster(address, 2, int(index)))
for number in range(3):
    collectives.barrier(f"meeting {number}", 30)
    assert collectives.broadcast([int(index), number]) == [0, number]
squares = collectives.gather("squares", (int(index) + 2) ** 2)
assert squares == ([4, 9] if index == "0" else []), squares
if index == "0":
    try:
        collectives.barrier("the start of stage sft", 1.0)
    except collectives.LostProcess as error:
        print(error)
    jax._src.distributed.global_state.client.key_value_set("go", "")
else:
    jax._src.distributed.global_state.client.blocking_key_value_get("go", 30_000)
peers.leave(0)
"""


@pytest.mark.distributed
def test_a_barrier_that_times_out_names_who_is_missing(free_address):
    address = free_address()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEETINGS, address, str(index)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    results = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == (
        "process 1 of 2 did not come to the start of stage sft within 1 s: "
        "see what is said there last\n"
    )
