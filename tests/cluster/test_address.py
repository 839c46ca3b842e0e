"""Where workers are, and clusters that are refused because strangers could be in them."""

import importlib.util

import pytest

from stair_jax.cluster import address
from stair_jax.cluster.address import ClusterAddress, check, guard, read_address
from stair_jax.cluster.places import find_machines, find_places
from stair_jax.errors import UserError


def test_an_address_is_read_as_it_is_written():
    assert read_address("local:4") == ClusterAddress(workers=4)
    assert read_address("ray://10.0.0.1:6379") == ClusterAddress(head="10.0.0.1:6379")
    for text in ("local:4", "ray://head.cluster:6379"):
        assert read_address(text).text == text


@pytest.mark.parametrize(
    "text", ["", "local", "local:", "local:-1", "head:6379", "ray://head", "ray://head:70000", "x"]
)
def test_another_text_is_refused(text):
    with pytest.raises(UserError, match="local:N"):
        read_address(text)


@pytest.mark.parametrize("text", ["local:0", "local:99999"])
def test_a_number_of_workers_that_cannot_be_is_refused(text):
    with pytest.raises(UserError, match="N must be from 1 to 1024"):
        read_address(text)


@pytest.mark.parametrize("mode", [None, "", "disabled"])
def test_a_cluster_that_is_open_to_strangers_is_refused(monkeypatch, mode):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(UserError, match="RAY_AUTH_MODE=token"):
        guard(read_address("ray://head:6379"))


def test_a_cluster_of_this_machine_draws_a_token_and_stays_on_it(monkeypatch):
    environment = {}
    monkeypatch.setattr(address.os, "environ", environment)
    guard(read_address("local:2"))
    assert environment["RAY_AUTH_MODE"] == "token" and len(environment["RAY_AUTH_TOKEN"]) == 64
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    token = environment["RAY_AUTH_TOKEN"]
    guard(read_address("local:2"))
    assert environment["RAY_AUTH_TOKEN"] == token


def test_without_ray_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install .stair_jax\[ray\]"):
        check(read_address("local:2"))


def node(name, alive=True, **resources):
    return {
        "NodeID": f"id-{name}",
        "NodeManagerAddress": name,
        "Alive": alive,
        "Resources": resources,
    }


def test_each_gpu_each_host_of_tpus_and_each_other_machine_has_a_worker():
    nodes = [
        node("a", CPU=64.0, GPU=2.0),
        node("b", CPU=8.0, TPU=4.0),
        node("c", CPU=3.0),
        node("d", alive=False, GPU=8.0),
        node("e"),
    ]
    places = find_places(nodes, read_address("ray://head:6379"))
    assert [place.name for place in places] == ["a/0", "a/1", "b/0", "c/0"]
    assert places[0].options == places[1].options == {"num_gpus": 1, "num_cpus": 0}
    assert places[2].options == {"num_cpus": 0, "resources": {"TPU": 4}}
    assert places[3].options == {"num_cpus": 3} and places[3].node == "id-c"
    assert len(set(places)) == 4


def test_this_machine_has_as_many_workers_as_were_asked_for():
    address = read_address("local:3")
    names = [place.name for place in find_places([node("a", CPU=3.0)], address)]
    assert names == ["a/0", "a/1", "a/2"]
    assert len(find_places([node("a", GPU=4.0)], address)) == 3
    with pytest.raises(UserError, match="this machine has 2 GPUs"):
        find_places([node("a", GPU=2.0)], address)
    with pytest.raises(UserError, match="local:1"):
        find_places([node("a", TPU=4.0)], address)


def test_machines_that_are_alike_train_together():
    nodes = [
        node("b", GPU=8.0, CPU=64.0, **{"accelerator_type:H100": 1.0}),
        node("a", GPU=8.0, CPU=32.0, **{"accelerator_type:H100": 1.0}),
        node("c", GPU=8.0, **{"accelerator_type:A100": 1.0}),
        node("d", GPU=8.0, alive=False, **{"accelerator_type:H100": 1.0}),
        node("e", CPU=256.0),
        node("f"),
    ]
    machines = find_machines(nodes)
    assert [(each.name, each.node) for each in machines] == [("a", "id-a"), ("b", "id-b")]
    assert machines[0].options == {"num_gpus": 8, "num_cpus": 0}
    assert [each.name for each in find_machines(nodes[4:])] == ["e"]
    assert find_machines([]) == []


def test_machines_without_accelerators_train_together_and_slices_alone():
    cpus = [node("a", CPU=3.0), node("b", CPU=4.0)]
    assert [each.options for each in find_machines(cpus)] == [{"num_cpus": 3}, {"num_cpus": 4}]
    slices = [node("c", TPU=4.0, CPU=8.0), node("d", TPU=8.0, CPU=8.0)]
    (machine,) = find_machines([*cpus, *slices])
    assert machine.name == "d"
    assert machine.options == {"num_cpus": 0, "resources": {"TPU": 8}}
