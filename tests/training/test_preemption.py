"""Within the context manager SIGTERM sets a flag; leaving it ends the process as usual."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.preemption import Preemption


class LeavingError(Exception):
    pass


@pytest.fixture
def handler():
    """Installs a SIGTERM handler that raises, like that of the command."""

    def leave(number, frame):
        raise LeavingError(number)

    before = signal.signal(signal.SIGTERM, leave)
    yield leave
    signal.signal(signal.SIGTERM, before)


def send():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_notice_is_kept_until_the_run_leaves(handler):
    with Preemption() as preemption:
        assert not preemption.reached()
        send()
        send()
        assert preemption.reached() and preemption.reached()
        with pytest.raises(LeavingError, match=str(signal.SIGTERM.value)):
            preemption.leave()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_run_that_saves_nothing_is_ended_at_once(handler):
    with Preemption(heeds=False) as preemption:
        with pytest.raises(LeavingError):
            send()
        assert not preemption.reached()


def test_the_handler_is_back_after_an_error(handler):
    with pytest.raises(ZeroDivisionError), Preemption():
        send()
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_notice_that_nobody_asks_for_takes_effect_at_the_end(handler):
    done = []
    with pytest.raises(LeavingError), Preemption():
        send()
        done.append("the rest of the block")
    assert done and signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            send()
            assert not preemption.reached()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_take_nothing_over(handler):
    found = []

    def run():
        with Preemption() as preemption:
            found.append((signal.getsignal(signal.SIGTERM), preemption.reached()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(handler, False)]


LOOP = runpy.run_path(str(Path(__file__).with_name("test_loop.py")))


def train_as_one_of_two(folder, port, index):
    """Body of each of two processes with one device each, and a handler like the command's."""

    def leave(number, frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
    run = LOOP["make_run"](folder, LOOP["SlowBatches"])
    LOOP["train_run"](replace(run, mesh=make_mesh(MeshShape(fsdp=2)), checkpoint_every=100))


@pytest.mark.distributed
@pytest.mark.slow
def test_a_notice_to_one_process_stops_all_at_the_same_step(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(LOOP["ROOT"])}
    processes = []
    for index in range(2):
        arguments = f"{str(tmp_path)!r}, {port}, {index}"
        code = f"import runpy; runpy.run_path({__file__!r})['train_as_one_of_two']({arguments})"
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
    try:
        metrics = tmp_path / "metrics.jsonl"
        while not (metrics.exists() and '"step": 2,' in metrics.read_text()):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in processes] == [128 + signal.SIGTERM] * 2
    finally:
        for process in processes:
            process.kill()
            process.wait()
    (step,) = LOOP["saved"](tmp_path)
    assert 3 <= step == len(LOOP["metrics_of"](tmp_path)) < LOOP["NUM_STEPS"]
    # Each has hashed its part. A single process on one device resumes the run.
    parts = [path.name for path in (tmp_path / "checkpoints" / str(step)).glob("hashes.*")]
    assert sorted(parts) == ["hashes.process_0.json", "hashes.process_1.json"]
    steps = []
    run = LOOP["make_run"](tmp_path)
    LOOP["train_run"](run, inspect=lambda step, values: steps.append(step))
    assert steps == list(range(step, LOOP["NUM_STEPS"]))
