"""The scripts of launch/, with commands of clusters that only write down what they are told."""

import re
import shutil
import signal
import stat
import subprocess
import time

import pytest

from tests import launch_clone
from tests.launch_clone import ROOT, run, start

SCRIPTS = (
    "host.sh",
    "slurm.sh",
    "tpu_pod.sh",
    "gke.sh",
    "soak.sh",
    "ray.sh",
    "slurm_ray.sh",
    "tpu_workers.sh",
)
TOKEN = "0123456789abcdef0123456789abcdef"
COMMAND = ("--config=a.py", "--workdir=/runs/a b", "--config.sft.rates={'x': 1}")
PYTHON = """[[ "$1 $2" == "-m pip" ]] && exit 0
echo "python $*" >>"$LOG"
[[ -n "${WORKS:-}" ]] || exit 0
trap 'echo "python got TERM" >>"$LOG"; exit 143' TERM
echo "at work" >>"$LOG"
while true; do sleep 0.05; done
"""
FAKES = {
    "srun": 'echo "srun $*" >>"$LOG"; echo $$ >"$LOG.pid"; echo "$STAIR_TOKEN" >>"$LOG.tokens"\n'
    'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "scancel": 'echo "scancel $*" >>"$LOG"; kill -TERM "$(cat "$LOG.pid")"',
    "scontrol": 'echo "scontrol $*" >>"$LOG"',
    "xpk": 'printf "%s\\n" xpk "$@" >>"$LOG"',
    "gcloud": 'printf "%s " gcloud "$@" >>"$LOG"; echo >>"$LOG"\n'
    'if [[ "$*" == *describe* ]]; then head -1 "$LOG.states"; sed -i 1d "$LOG.states"; fi',
    "git": 'printf "setup.cfg\\0"',
    "nvidia-smi": "exit 1",
}


@pytest.fixture
def clone(tmp_path):
    return launch_clone.make(tmp_path, FAKES | {".venv/bin/python": PYTHON})


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run_and_begin_with_their_usage(script):
    path = ROOT / "launch" / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)
    head = [line for line in path.read_text().splitlines() if not line.startswith("#SBATCH")][:14]
    assert any(f"launch/{script}" in line and line.startswith("# ") for line in head)


def test_shellcheck_has_nothing_to_say():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [f"launch/{script}" for script in SCRIPTS]
    result = subprocess.run(
        ["shellcheck", "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_one_host_runs_the_command(clone):
    status, _, log = run(clone, "host.sh", *COMMAND, STAIR_EXTRA="none")
    assert status == 0
    assert log == ["python -u -m stair_jax.launch " + " ".join(COMMAND)]


def test_a_soak_gets_its_name_and_size(clone):
    status, _, log = run(clone, "soak.sh", "kills", "--size", "3")
    assert (status, log) == (0, ["python -m soak kills --size 3"])


def test_slurm_runs_a_process_on_each_node(clone):
    status, _, log = run(clone, "slurm.sh", *COMMAND, SLURM_SUBMIT_DIR=str(clone), SLURM_JOB_ID="7")
    assert status == 0
    assert log[0].startswith("srun --kill-on-bad-exit=0 --wait=120 .venv/bin/python -u -m")
    assert log[1:] == ["python -u -m stair_jax.launch --distributed " + " ".join(COMMAND)]
    run(clone, "slurm.sh", *COMMAND, SLURM_SUBMIT_DIR=str(clone), STAIR_TOKEN=TOKEN)
    drawn, given = (clone.parent / "log.tokens").read_text().split()
    assert re.fullmatch("[0-9a-f]{32}", drawn) and given == TOKEN


def test_slurm_saves_before_the_time_is_up_and_is_queued_again(clone):
    log = clone.parent / "log"
    process = start(
        clone, "slurm.sh", *COMMAND, SLURM_SUBMIT_DIR=str(clone), SLURM_JOB_ID="7", WORKS="yes"
    )
    while not (log.exists() and "at work" in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert log.read_text().splitlines()[3:] == [
        "scancel --signal=TERM 7",
        "python got TERM",
        "scontrol requeue 7",
    ]


def test_a_tpu_slice_is_asked_for_awaited_and_used(clone):
    states = ["", "WAITING_FOR_RESOURCES", "SUSPENDED", "", "PROVISIONING", "ACTIVE"]
    (clone.parent / "log.states").write_text("\n".join(states) + "\n")
    where = {"ZONE": "z", "TYPE": "v5p-32", "VERSION": "v2", "OPTIONS": "--spot --labels=a=b"}
    status, said, log = run(clone, "tpu_pod.sh", "run", "pod", *COMMAND, **where, STAIR_TOKEN=TOKEN)
    assert status == 0, said
    assert "pod is WAITING_FOR_RESOURCES" in said
    told = [line for line in log if line.startswith("gcloud") and "describe" not in line]
    create = (
        "gcloud compute tpus queued-resources create pod --node-id=pod --accelerator-type=v5p-32 "
        "--runtime-version=v2 --spot --labels=a=b --zone=z "
    )
    delete = "gcloud compute tpus queued-resources delete pod --force --quiet --zone=z "
    assert told[:3] == [create, delete, create]
    assert told[3].startswith("gcloud compute tpus tpu-vm scp ") and "--worker=all" in told[3]
    assert "tpu-vm ssh pod --worker=all --command=set -e; true; mkdir -p stair_jax" in told[4]
    assert (
        log[-1]
        .strip()
        .endswith(
            "cd stair_jax && STAIR_TOKEN=$(cat ~/.stair_token) exec .venv/bin/python -u -m "
            "stair_jax.launch --distributed --config=a.py --workdir=/runs/a\\ b "
            "--config.sft.rates=\\{\\'x\\':\\ 1\\}  --zone=z"
        )
    )
    assert re.search(r"tpu-vm scp \S+ pod:\.stair_token --worker=all", told[5])
    assert TOKEN not in "".join(log)
    assert run(clone, "tpu_pod.sh", "delete", "pod", ZONE="z")[2][-1] == delete
    stop = run(clone, "tpu_pod.sh", "stop", "pod", ZONE="z")[2][-1]
    assert "--command=pkill -TERM -f '[s]tair_jax.launch'" in stop


def test_a_jobset_runs_the_command_in_each_pod(clone):
    where = {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "TYPE": "v5p-32"}
    options = "--storage=runs --priority=high"
    status, _, log = run(
        clone, "gke.sh", "run", "job", *COMMAND, **where, OPTIONS=options, STAIR_TOKEN=TOKEN
    )
    assert status == 0
    where_to = ["--cluster=c", "--project=p", "--zone=z", "--workload=job"]
    assert log[:7] == ["xpk", "workload", "create", *where_to]
    assert {"--storage=runs", "--priority=high", "--max-restarts=10"} < set(log)
    assert log[-1] == (
        f"--command=STAIR_TOKEN={TOKEN} STAIR_EXTRA=tpu exec bash launch/host.sh --distributed "
        "--config=a.py --workdir=/runs/a\\ b --config.sft.rates=\\{\\'x\\':\\ 1\\} "
    )
    status, _, log = run(clone, "gke.sh", "delete", "job", **where)
    assert log[-7:-4] == ["xpk", "workload", "delete"]


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gke.sh"])
def test_without_arguments_the_usage_is_shown(clone, script):
    status, said, log = run(clone, script)
    assert (status, log) == (2, []) and f"bash launch/{script} run NAME --config=FILE" in said
