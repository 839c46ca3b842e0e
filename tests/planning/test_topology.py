import importlib.util

import jax
import pytest
from jax.experimental import topologies

from stair_jax.errors import UserError
from stair_jax.parallel.chips import GIB, device_chip
from stair_jax.planning.topology import get_topology


@pytest.mark.parametrize(
    ("name", "chips"),
    [("v4:2x2x1", 4), ("v5p:2x2x1", 4), ("v5e:4x4", 16), ("v6e:2x4", 8), ("v5e:1x1", 1)],
)
def test_a_slice_has_a_device_a_chip(tpu, name, chips):
    topology = tpu(name)
    assert len(topology.devices) == chips
    assert {device.platform for device in topology.devices} == {"tpu"}
    assert topology.chip.name == name.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "count", "hosts"),
    [("h100:8", 8, 1), ("rtx4090", 1, 1), ("l40s:2", 2, 1), ("b200:16", 16, 2)],
)
def test_gpus_are_eight_a_host(gpus, name, count, hosts):
    topology = gpus(name)
    assert len(topology.devices) == count
    assert len({device.process_index for device in topology.devices}) == hosts
    assert {device.platform for device in topology.devices} == {"gpu"}
    assert topology.chip.name == name.partition(":")[0].upper()
    assert device_chip(topology.devices[0]) == topology.chip


def test_the_share_of_the_memory_that_jax_takes(gpus, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert gpus("h200").chip.memory == 0.75 * 139.8 * GIB
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    topology = gpus("h200")
    assert topology.chip.memory == 0.9 * 139.8 * GIB
    assert topology.note.startswith("JAX takes 0.9 of a GPU's 139.8 GiB: XLA_PYTHON_CLIENT_MEM_FR")


def test_a_missing_compiler_for_gpus_is_named(monkeypatch):
    def lack(*_, **options):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", lack)
    with pytest.raises(UserError) as caught:
        get_topology("h100:8")
    assert str(caught.value) == (
        "--plan=h100:8 needs the compiler for CUDA, with or without a GPU: "
        "pip install 'stair_jax[gpu-plans]' (on Linux)"
    )


def test_local_devices():
    topology = get_topology("local")
    assert topology.devices == jax.devices()
    assert topology.chip.name == "cpu"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "known are v4:2x2x1, v5p:2x2x1, v5e:4x4, v6e:4x4 (other shapes too), or local"),
        ("v5p", "known are"),
        ("h10:8", "did you mean h100 or h100-pcie?"),
        ("a100:8", "did you mean a100-40gb or a100-80gb?"),
        ("h100:", "did you mean h100 or h100-pcie?"),
        ("h100:12", "there can be 1 to 8 GPUs of one host, or a multiple of 8 up to 1024"),
        ("h100:0", "there can be 1 to 8 GPUs"),
        ("v3:2x2", "known are"),
        ("v5e:2x2 ", "known are"),
        ("v5p:2x2", "a slice of v5p has 3 dimensions, such as v5p:2x2x1"),
        ("v5e:4x4x1", "a slice of v5e has 2 dimensions, such as v5e:2x2"),
        ("v5e:3x4", "its first two sizes are even"),
        ("v5e:0x4", "its first two sizes are even"),
        ("v5e:32x32", "a slice of v5e has at most 256 chips"),
    ],
)
def test_a_name_that_is_no_topology(name, said):
    with pytest.raises(UserError) as caught:
        get_topology(name)
    assert said in str(caught.value)


def test_a_missing_compiler_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'stair_jax\[tpu\]'"):
        get_topology("v5e:2x2")


def test_a_slice_that_the_compiler_refuses(tpu, monkeypatch):
    def refuse(*_, **options):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: no such slice\nat some line")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError) as caught:
        tpu("v6e:2x2")
    assert str(caught.value) == (
        "--plan=v6e:2x2: libtpu rejects it: INVALID_ARGUMENT: no such slice"
    )
