"""Runs of two processes with four devices each, started by the real command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stair_jax.storage import RecordLog, write_jsonl

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("tiny_run.py")
SEARCHED = [f"p{i}" for i in range(5)]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_stage_inputs):
    folder = make_stage_inputs(tmp_path_factory.mktemp("inputs"), rows=16, initializer_range=0.1)
    prompts = [{"id": id, "prompt": f"{id} + 2?", "kind": "safety"} for id in SEARCHED]
    prompts.insert(2, {"id": "long", "prompt": "1 " * 200, "kind": "safety"})
    write_jsonl(folder / "data" / "prompts.jsonl", [row | {"source": "test"} for row in prompts])
    return folder


class Processes:
    """The command in one or several processes, which share eight devices equally."""

    def __init__(self, inputs, workdir, count, *flags):
        workdir.mkdir(exist_ok=True)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(8 // count),
            "JAX_COMPILATION_CACHE_DIR": str(inputs / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        command = [sys.executable, "-m", "stair_jax.launch", f"--config={CONFIG}:{inputs}"]
        command += [f"--workdir={workdir}", *flags]
        address = f"--coordinator=127.0.0.1:{free_port()}"
        self.logs = [workdir.with_suffix(f".{index}.log") for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            which = [address, f"--num_processes={count}", f"--process_id={index}"]
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command + (which if count > 1 else []),
                        cwd=ROOT,
                        env=environment,
                        stderr=file,
                        stdout=file,
                    )
                )

    def wait(self):
        """Waits for the processes; returns their exit statuses and output."""
        statuses = [process.wait(timeout=240) for process in self.processes]
        return statuses, [log.read_text() for log in self.logs]

    def finish(self):
        statuses, said = self.wait()
        assert statuses == [0] * len(statuses), said


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The folder of a run of all stages in one process."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    Processes(inputs, workdir, 1).finish()
    return workdir


@pytest.fixture(scope="module")
def shared(inputs, tmp_path_factory):
    """The folder of a run of all stages in two processes."""
    workdir = tmp_path_factory.mktemp("shared") / "run"
    Processes(inputs, workdir, 2).finish()
    return workdir


def metrics(workdir, stage):
    return [json.loads(line) for line in (workdir / stage / "metrics.jsonl").open()]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_of_four_devices_train_like_one_of_eight(whole, shared, stage):
    one, two = metrics(whole, stage), metrics(shared, stage)
    assert len(one) == len(two) >= 4
    assert one[0]["loss"] - one[-1]["loss"] > 0.05
    for expected, values in zip(one, two, strict=True):
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-5)


def trees(workdir):
    records = RecordLog(workdir / "search" / "trees.jsonl.gz").read()
    return [record | {"seconds": None} for record in records]


def test_two_processes_grow_the_trees_of_one(whole, shared):
    one = {record["id"]: record for record in trees(whole)}
    assert [record["id"] for record in trees(shared)] == SEARCHED
    assert trees(shared) == [one[id] for id in SEARCHED]
    assert sum(record["generated_tokens"] for record in one.values()) > 100
    skipped = (whole / "search" / "skipped.json").read_text()
    assert (shared / "search" / "skipped.json").read_text() == skipped
    assert json.loads(skipped) == [{"id": "long", "reason": "prompt too long"}]
    assert not list((shared / "search").glob(".part*"))


def test_records_do_not_depend_on_the_number_of_processes(whole, shared):
    for stage in ("data", "base", "sft", "search", "dpo", "export"):
        one, two = (
            json.loads((run / stage / "complete.json").read_text()) for run in (whole, shared)
        )
        assert one["fingerprint"] == two["fingerprint"] and set(one["files"]) == set(two["files"])
        if stage in ("data", "base"):
            assert one == two


def stop_when(is_time, processes, process, number):
    """Sends a signal to one process when a condition holds; returns the exits of all."""
    while not is_time():
        assert processes.processes[0].poll() is None, processes.wait()
        time.sleep(0.02)
    processes.processes[process].send_signal(number)
    return processes.wait()


def test_the_end_of_one_ends_both_and_a_restart_ends_with_the_same_bits(inputs, shared, tmp_path):
    """Process 0, which serves the others, is killed; in the next run process 1 gets SIGTERM."""
    workdir = tmp_path / "run"
    command = (inputs, workdir, 2, "--config.stages=('files:data','model:base','sft')")
    checkpoint = workdir / "sft" / "checkpoints" / "2"
    statuses, said = stop_when(checkpoint.exists, Processes(*command), 0, signal.SIGKILL)
    assert statuses == [-signal.SIGKILL, 4], said
    assert "process 0 of 2 is lost (killed, or its machine is down)" in said[1]
    again = Processes(*command)

    def goes_on():  # not at a checkpoint, the last may come too soon: step 1 takes seconds
        return "sft: goes on at" in again.logs[0].read_text()

    statuses, said = stop_when(goes_on, again, 1, signal.SIGTERM)
    assert statuses == [143, 143], said
    assert all("terminated: the same command goes on where it stopped" in text for text in said)
    assert not (workdir / "sft" / "hf").exists()
    restarted = Processes(*command)
    restarted.finish()
    assert "sft: goes on at" in restarted.logs[0].read_text()
    for name in ("metrics.jsonl", "hf/model.safetensors"):
        expected = (shared / "sft" / name).read_bytes()
        assert (workdir / "sft" / name).read_bytes() == expected
