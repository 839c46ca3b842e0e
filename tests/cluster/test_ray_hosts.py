"""Which machines of a Ray cluster have a process of a program."""

from types import SimpleNamespace
from typing import ClassVar

import pytest

from stair_jax.cluster import ray_hosts
from stair_jax.cluster.address import read_address
from stair_jax.cluster.host import HostLost, ThisHost
from stair_jax.cluster.ray_hosts import RayHosts


class FakeMachine:
    """The actor of a machine that sees the file, does not, or is out of reach."""

    sees_by_node: ClassVar[dict] = {}
    alive: ClassVar[set] = set()

    def __init__(self, connection, place):
        self.name, self._node = place.name, place.node
        self.alive.add(self)

    def sees(self, file):
        answer = self.sees_by_node[self._node]
        if answer is None:
            raise HostLost(self.name)
        return answer

    def free_port(self):
        return 1

    def kill(self):
        self.alive.discard(self)


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """`cluster(a=True, b=None)`: the machines a, which sees the file, and b, out of reach."""
    nodes = []
    connection = SimpleNamespace(
        nodes=lambda: nodes, address=read_address("ray://a:1"), close=lambda: None
    )
    monkeypatch.setattr(ray_hosts, "RayConnection", lambda address: connection)
    monkeypatch.setattr(ray_hosts, "_RayHost", FakeMachine)
    monkeypatch.setattr(FakeMachine, "alive", set())
    hosts = RayHosts(connection.address, tmp_path / "config.json")

    def cluster(**sees):
        monkeypatch.setattr(FakeMachine, "sees_by_node", sees)
        nodes[:] = [
            {"NodeID": name, "NodeManagerAddress": name, "Alive": True, "Resources": {"CPU": 2.0}}
            for name in sees
        ]
        return hosts

    return cluster


def names(taken):
    return [host.name for host in taken]


def test_machines_that_see_the_files_work(cluster, capsys):
    hosts = cluster(a=True, b=False, c=True)
    assert hosts.are_there(0) and hosts.are_there(2) and not hosts.are_there(3)
    assert names(hosts.take(0)) == ["a", "c"]
    assert "that do not see" in capsys.readouterr().err
    hosts.give_back()
    assert FakeMachine.alive == set()
    assert names(hosts.take(1)) == ["a"]


def test_where_none_sees_them_this_machine_works_alone(cluster, capsys):
    hosts = cluster(a=False, b=False)
    assert hosts.are_there(2)
    (host,) = hosts.take(2)
    assert isinstance(host, ThisHost)
    assert "no machine of --cluster=ray://a:1 sees" in capsys.readouterr().err


def test_machines_are_waited_for(cluster, monkeypatch, capsys):
    hosts = cluster(a=True, b=None)
    monkeypatch.setattr(ray_hosts.time, "sleep", lambda seconds: cluster(a=True, c=True))
    assert not hosts.are_there(2)
    assert names(hosts.take(2)) == ["a", "c"]
    said = capsys.readouterr().err
    assert said == "waits for 2 machines that are alike in --cluster=ray://a:1\n"
