"""The connection to Ray, with a module in its place."""

import signal
import sys
from types import SimpleNamespace

import pytest

from stair_jax.cluster import ray_connection
from stair_jax.cluster.address import ClusterAddress
from stair_jax.stopping import Stopped, StopSignals


def test_a_signal_while_ray_has_its_own_handler_is_one_to_stop(monkeypatch):
    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with StopSignals() as signals, pytest.raises(Stopped):
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray_connection._connect(ClusterAddress(head="localhost:1"), None)
        finally:
            assert signal.getsignal(signal.SIGTERM) == before
    assert signals.number == signal.SIGTERM
