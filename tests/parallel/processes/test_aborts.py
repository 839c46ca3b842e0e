"""An abort of this process waits until the watchdog has said why."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Process 1 aborts, as JAX does in a thread without Python's lock, and only then process 0 ends.
ABORTS = """
import ctypes, os, sys, threading, time
from stair_jax.parallel.processes.aborts import delay_aborts
from stair_jax.parallel.processes.hello import Member
from stair_jax.parallel.processes.rendezvous import meet
from stair_jax.parallel.processes.watchdog import Watchdog
address, index = sys.argv[1:]
member = Member(address, 2, int(index))
watchdog = Watchdog(member, meet(member, 60.0))
if index == "0":
    sys.stdin.read(1)
    os._exit(0)
delay_aborts()
threading.Thread(target=ctypes.CDLL(None).abort).start()
time.sleep(0.2)
print("aborting", flush=True)
time.sleep(60)
"""


def start(address, index):
    return subprocess.Popen(
        [sys.executable, "-c", ABORTS, address, str(index)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.distributed
def test_the_end_of_process_0_is_said_though_this_process_aborts(free_address):
    address = free_address()
    processes = [start(address, index) for index in range(2)]
    assert processes[1].stdout.readline() == "aborting\n"
    processes[0].communicate("x")
    _, err = processes[1].communicate(timeout=50)
    assert processes[1].returncode == 4, err
    assert err == (
        "stair_jax: process 0 of 2 is lost (killed, or its machine is down): the same command goes "
        "on where it stopped\n"
    )
