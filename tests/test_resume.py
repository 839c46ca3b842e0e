"""A run that is stopped again and again ends with the bytes of one that was left alone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stair_jax.storage import RecordLog

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
NUM_TREES = 6
SETTINGS = {
    "stages": (
        "pocket:data",
        "model:base",
        "sft",
        "search:search1",
        "preferences:pairs1",
        "dpo:iter1",
    ),
    "runtime.slots": 16,
    "runtime.prefill_rows": 4,
    "runtime.trees_in_flight": 2,  # so that trees are finished one after the other
    "pocket.num_sft": 160,
    "pocket.num_replay": 40,  # without them no reply of the judge can be read
    "pocket.num_search": NUM_TREES,
    "pocket.per_family": 1,
    "sft.reader": "datasets",
    "sft.epochs": 1.4,  # 28 steps: enough for answers with tags, few enough for some without
    "sft.batch_size": 10,
    "sft.learning_rate": 1e-3,
    "sft.max_length": 128,
    "search.num_iterations": 8,
    "search.max_answer_tokens": 80,
    "preferences.v0": 0.0,  # any difference makes a pair
    "preferences.v1": -3.0,
    "preferences.prm.max_pairs_per_tree": 2,
    "preferences.prm.v0": 0.0,
    "dpo.batch_size": 2,
    "dpo.learning_rate": 5e-4,
    "dpo.checkpoint_every": 3,
}


def start(workdir: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts the command; what it says goes to `log`. All starts share the compiled programs."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # it computes more than it compiles
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    settings = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "stair_jax.launch", "--config=configs/pocket.py", *settings]
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=ROOT, env=environment, stderr=file
        )


def finish(workdir: Path, log: Path) -> str:
    """Runs the command to its end; returns what it said."""
    status = start(workdir, log).wait()
    assert status == 0, log.read_text()
    return log.read_text()


def kill_inside(stage: Path, is_inside: Callable[[Path], bool], log: Path) -> str:
    """Runs the command and kills it as soon as `is_inside(stage)`; returns what it said."""
    return stop_inside(stage, is_inside, log, signal.SIGKILL, -signal.SIGKILL)


def terminate_inside(stage: Path, log: Path) -> str:
    """Runs the command, and sends SIGTERM when the stage has a checkpoint: it saves another one."""
    said = stop_inside(stage, saved_steps, log, signal.SIGTERM, 128 + signal.SIGTERM)
    assert "terminated: the same command goes on" in said
    lines = (stage / "metrics.jsonl").read_bytes().count(b"\n")
    assert max(saved_steps(stage)) == lines, "what was done is not what was saved"
    return said


def stop_inside(
    stage: Path, is_inside: Callable[[Path], Any], log: Path, number: int, expected: int
) -> str:
    """Runs the command, and sends it a signal as soon as `is_inside(stage)`."""
    process = start(stage.parent, log)
    try:
        while not is_inside(stage):
            assert process.poll() is None, f"ended before the kill:\n{log.read_text()}"
            assert not (stage / "complete.json").exists(), f"{stage.name} ended before the kill"
            time.sleep(0.005)
        process.send_signal(number)
        status = process.wait(60)
    finally:
        process.kill()
    assert status == expected, f"ended otherwise:\n{log.read_text()}"
    return log.read_text()


def saved_steps(stage: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    return [int(path.name) for path in stage.glob("checkpoints/*") if path.name.isdigit()]


def has_some_trees(stage: Path) -> bool:
    """Whether a tree is on the disk; others are then half grown."""
    return len(RecordLog(stage / "trees.jsonl.gz").read()) > 0


def check_goes_on(name: str, said: str) -> None:
    """Checks that the stage had been killed in its middle, and went on from there."""
    match = re.search(rf"^{name}: goes on at (\d+) of (\d+) ", said, re.MULTILINE)
    assert match, f"{name} was not killed in its middle:\n{said}"
    done, total = map(int, match.groups())
    assert 0 < done < total, f"{name} was killed at {done} of {total}, too late to test anything"


def trees(workdir: Path) -> list[dict[str, Any]]:
    """The records of the search by prompt, without the one field that may differ."""
    records = RecordLog(workdir / "search1" / "trees.jsonl.gz").read()
    for record in records:
        del record["seconds"]
    return sorted(records, key=lambda record: record["id"])


def test_a_killed_and_resumed_run_gives_the_same_bytes(tmp_path):
    """SIGKILL in the middle of the search, SIGTERM in that of DPO; test_loop.py kills training."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    finish(calm, tmp_path / "calm.txt")
    for stage in ("data", "base", "sft"):  # what is killed begins after them
        shutil.copytree(calm / stage, killed / stage)

    kill_inside(killed / "search1", has_some_trees, tmp_path / "1.txt")
    said = terminate_inside(killed / "iter1", tmp_path / "2.txt")
    check_goes_on("search1", said)
    said = finish(killed, tmp_path / "3.txt")
    check_goes_on("iter1", said)

    assert len(trees(calm)) == NUM_TREES
    assert trees(killed) == trees(calm)
    for file in (
        "pairs1/dpo.jsonl",
        "pairs1/prm.jsonl",
        "iter1/hf/model.safetensors",
        "iter1/metrics.jsonl",
    ):
        assert (killed / file).read_bytes() == (calm / file).read_bytes(), file
