"""The connection to Ray, with a module in its place."""

import ctypes
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from stair_jax.cluster import ray_connection
from stair_jax.cluster.address import ClusterAddress
from stair_jax.stopping import Stopped, StopSignals, heed


def is_caught(number):
    """Whether this process has a handler of a signal, as the kernel knows it."""
    (mask,) = re.findall(r"SigCgt:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_signal_while_ray_starts_is_one_to_stop_also_where_ray_catches_all(monkeypatch):
    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        ctypes.CDLL(None).signal(signal.SIGTERM, 0)  # SIG_DFL

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    set_handler = signal.signal
    with StopSignals() as signals, pytest.raises(Stopped):
        before = signal.getsignal(signal.SIGTERM)
        ray_connection._connect(ClusterAddress(head="localhost:1"), None)
        assert signal.getsignal(signal.SIGTERM) == before and is_caught(signal.SIGTERM)
        heed()
    assert signals.number == signal.SIGTERM and signal.signal is set_handler
