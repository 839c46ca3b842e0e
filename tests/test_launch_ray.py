"""The scripts that start a Ray cluster for a run, with a Ray that only writes down its words."""

import os
import re
import signal
import socket
import sys
import time

import pytest

from tests import launch_clone
from tests.launch_clone import run, start

TOKEN = "0123456789abcdef" * 4
COMMAND = ("--config=a.py", "--workdir=/runs/a b")
PYTHON = """[[ "$1 $2" == "-m pip" ]] && exit 0
[[ "$1" == -c ]] && echo 127.0.0.1 && exit 0
echo "python $*" >>"$LOG"
[[ -n "${WORKS:-}" ]] || exit "${ENDS:-0}"
trap 'echo "python got TERM" >>"$LOG"; exit 143' TERM
echo "at work" >>"$LOG"
while true; do sleep 0.05; done
"""
# The head listens until it is told to stop, as Ray does; a machine that joins ends at once.
RAY = f"""echo "ray $* mode=$RAY_AUTH_MODE" >>"$LOG"; echo "$RAY_AUTH_TOKEN" >>"$LOG.tokens"
[[ "$*" == *--head* ]] || exit 1
echo $$ >"$LOG.head"
exec {sys.executable} -c '
import os, signal, socket, sys
def stop(*_):
    open(os.environ["LOG"], "a").write("ray got TERM\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
port = next(word for word in sys.argv if word.startswith("--port=")).partition("=")[2]
server = socket.create_server(("127.0.0.1", int(port)))
while True:
    server.accept()
' "$@"
"""
FAKES = {
    ".venv/bin/python": PYTHON,
    ".venv/bin/ray": RAY,
    "srun": 'echo "srun $*" >>"$LOG"; echo "$RAY_AUTH_TOKEN" >>"$LOG.tokens"; exec sleep 30',
    "scontrol": 'echo "scontrol $*" >>"$LOG"',
    "gcloud": 'echo "gcloud $*" >>"$LOG"\n'
    'for word in "$@"; do [[ ! -f "$word" ]] ||\n'
    'cp -p --remove-destination "$word" "$LOG.sent"; done\n'
    'if [[ "$*" == *describe* ]]; then head -1 "$LOG.states"; sed -i 1d "$LOG.states"; fi\n'
    'if [[ "$*" == *ray.sh* ]]; then read -r code <"$LOG.codes"; sed -i 1d "$LOG.codes"\n'
    'exit "$code"; fi',
    "git": 'printf "setup.cfg\\0"',
    "nvidia-smi": "exit 1",
}


@pytest.fixture
def clone(tmp_path):
    return launch_clone.make(tmp_path, FAKES)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def wait_until_at_work(process, log):
    while not (log.exists() and "at work" in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_run_has_a_cluster_as_long_as_it_lives(clone, port):
    options = {"RAY_OPTIONS": "--num-cpus=0 --num-gpus=0", "RAY_PORT": port, "ENDS": "3"}
    status, said, log = run(clone, "ray.sh", "run", *COMMAND, RAY_AUTH_TOKEN=TOKEN, **options)
    assert status == 3, said
    assert re.sub(r"--temp-dir=\S+", "--temp-dir", log[0]) == (
        "ray start --block --disable-usage-stats --temp-dir --num-cpus=0 --num-gpus=0 --head "
        f"--node-ip-address=127.0.0.1 --port={port} --include-dashboard=false mode=token"
    )
    assert log[1:] == [
        f"python -u -m stair_jax.launch run --cluster=ray://127.0.0.1:{port} {' '.join(COMMAND)}",
        "ray got TERM",
    ]
    assert f"bash launch/ray.sh join 127.0.0.1:{port}" in said


def test_a_run_that_is_told_to_stop_saves_before_its_cluster_ends(clone, port):
    log = clone.parent / "log"
    words = {"RAY_AUTH_TOKEN": TOKEN, "RAY_PORT": port, "WORKS": "yes"}
    process = start(clone, "ray.sh", "run", *COMMAND, **words)
    wait_until_at_work(process, log)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert log.read_text().splitlines()[3:] == ["python got TERM", "ray got TERM"]


def test_a_run_whose_cluster_ends_does_not_wait_for_it(clone, port):
    log = clone.parent / "log"
    words = {"RAY_AUTH_TOKEN": TOKEN, "RAY_PORT": port, "WORKS": "yes"}
    process = start(clone, "ray.sh", "run", *COMMAND, **words)
    wait_until_at_work(process, log)
    os.kill(int((clone.parent / "log.head").read_text()), signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4 and "the head of the cluster has ended" in said
    assert log.read_text().splitlines()[-1] == "python got TERM"


def test_a_port_that_is_taken_is_named(clone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        words = {"RAY_AUTH_TOKEN": TOKEN, "RAY_PORT": taken}
        status, said, log = run(clone, "ray.sh", "run", *COMMAND, **words)
    assert (status, log) == (2, []) and f"127.0.0.1:{taken} is taken: set RAY_PORT" in said


@pytest.mark.parametrize("words", [("run", "--config=a.py"), ("join", "10.0.0.1:6379")])
def test_no_cluster_is_without_a_token(clone, words):
    status, said, log = run(clone, "ray.sh", *words)
    assert (status, log) == (2, []) and "set RAY_AUTH_TOKEN, the same on all machines" in said


def test_the_token_may_be_in_a_file(clone):
    (clone.parent / "token").write_text(TOKEN)
    path = str(clone.parent / "token")
    words = {"RAY_AUTH_TOKEN_PATH": path, "JOIN_SECONDS": "0", "POLL_SECONDS": "1"}
    status, said, _ = run(clone, "ray.sh", "join", "127.0.0.1:1", **words)
    assert status == 1 and "no cluster of this token at 127.0.0.1:1 for 0 s" in said


def test_a_machine_joins_as_often_as_there_is_a_cluster(clone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        process = start(clone, "ray.sh", "join", head, RAY_AUTH_TOKEN=TOKEN, JOIN_SECONDS="1")
        log = clone.parent / "log"
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    process.communicate(timeout=30)
    assert process.returncode == 0
    (words,) = {re.sub(r"--temp-dir=\S+", "--temp-dir", line) for line in log.open()}
    shared = "ray start --block --disable-usage-stats --temp-dir"
    assert words == f"{shared} --address={head} mode=token\n"


def test_an_interface_that_is_not_there_is_named(clone):
    words = {"RAY_AUTH_TOKEN": TOKEN, "INTERFACE": "none9"}
    status, said, log = run(clone, "ray.sh", "run", *COMMAND, **words)
    assert status == 2 and not log
    assert "INTERFACE=none9 has no IPv4 address" in said


def slurm(clone, nodes, port):
    there = {"SLURM_SUBMIT_DIR": str(clone), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": nodes}
    return there | {"RAY_PORT": port}


def test_nodes_of_slurm_join_the_first_one(clone, port):
    status, said, log = run(clone, "slurm_ray.sh", *COMMAND, **slurm(clone, "3", port))
    assert status == 0, said
    assert (
        "srun --no-kill --kill-on-bad-exit=0 --relative=1 --nodes=2 --ntasks=2 bash launch/ray.sh "
        f"join 127.0.0.1:{port}"
    ) in log
    drawn = (clone.parent / "log.tokens").read_text().split()
    assert len(drawn) == 2 and len(set(drawn)) == 1 and re.fullmatch("[0-9a-f]{64}", drawn[0])


def test_a_job_of_one_node_has_nobody_to_join_it(clone, port):
    status, _, log = run(clone, "slurm_ray.sh", *COMMAND, **slurm(clone, "1", port))
    assert status == 0 and not any(line.startswith("srun") for line in log)
    assert log[-2].startswith("python -u -m stair_jax.launch run --cluster=ray://127.0.0.1:")


def test_a_job_whose_time_is_up_saves_and_is_queued_again(clone, port):
    log = clone.parent / "log"
    process = start(clone, "slurm_ray.sh", *COMMAND, WORKS="yes", **slurm(clone, "2", port))
    wait_until_at_work(process, log)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert log.read_text().splitlines()[-3:] == [
        "python got TERM",
        "ray got TERM",
        "scontrol requeue 7",
    ]


WHERE = {"ZONE": "z", "TYPE": "v6e-8", "VERSION": "v2", "OPTIONS": "--spot"}


def test_slices_join_are_asked_for_anew_when_lost_and_end_with_the_cluster(clone):
    states = ["", "ACTIVE", "SUSPENDED", "", "ACTIVE"]
    (clone.parent / "log.states").write_text("\n".join(states) + "\n")
    (clone.parent / "log.codes").write_text("255\n0\n")  # of the two times that it joins
    words = ("join", "10.0.0.1:6379", "w", "1")
    status, said, log = run(clone, "tpu_workers.sh", *words, **WHERE, RAY_AUTH_TOKEN=TOKEN)
    assert status == 0, said
    told = [line for line in log if line.startswith("gcloud") and "describe" not in line]
    what = [" ".join(line.split()[3:5]) for line in told]
    use = ["tpu-vm scp", "tpu-vm ssh", "tpu-vm scp", "tpu-vm ssh"]
    ask, drop = "queued-resources create", "queued-resources delete"
    assert what == [ask, *use, drop, ask, *use, drop]
    assert any("make_environment tpu,ray" in line for line in log)
    joined = next(line for line in log if "ray.sh" in line)
    assert joined.endswith("exec bash launch/ray.sh join 10.0.0.1:6379 --zone=z")
    assert "RAY_AUTH_TOKEN_PATH=$HOME/.stair_ray_token STAIR_EXTRA=tpu" in joined


def test_the_token_of_slices_is_sent_as_a_file_and_in_no_command(clone):
    (clone.parent / "log.states").write_text("ACTIVE\n")
    (clone.parent / "log.codes").write_text("0\n")
    words = ("join", "10.0.0.1:6379", "w", "1")
    _, said, log = run(clone, "tpu_workers.sh", *words, **WHERE, RAY_AUTH_TOKEN=TOKEN)
    sent = clone.parent / "log.sent"
    assert sent.read_text().strip() == TOKEN and sent.stat().st_mode & 0o077 == 0
    assert TOKEN not in said + "".join(log)


def test_a_slice_that_fails_ten_times_in_a_row_is_deleted(clone):
    (clone.parent / "log.states").write_text("ACTIVE\n" * 10)
    (clone.parent / "log.codes").write_text("255\n" * 10)
    words = ("join", "10.0.0.1:6379", "w", "1")
    status, said, log = run(clone, "tpu_workers.sh", *words, **WHERE, RAY_AUTH_TOKEN=TOKEN)
    assert status == 1 and "w-1 failed ten times in a row" in said
    assert "queued-resources delete w-1" in log[-1]


def test_slices_are_deleted_by_their_numbers(clone):
    status, _, log = run(clone, "tpu_workers.sh", "delete", "w", "3", **WHERE)
    assert status == 0 and [line.split()[5] for line in log] == ["w-1", "w-2", "w-3"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("ray.sh", ()),
        ("ray.sh", ("join", "host")),
        ("tpu_workers.sh", ("join", "10.0.0.1:6379", "w", "none")),
        ("tpu_workers.sh", ("join", "10.0.0.1:6379", "w", "2")),  # without a token
    ],
)
def test_what_is_not_understood_shows_the_usage(clone, script, words):
    status, said, log = run(clone, script, *words, **WHERE)
    assert (status, log) == (2, []) and f"bash launch/{script} join HOST:PORT" in said
