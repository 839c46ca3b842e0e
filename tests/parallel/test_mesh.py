import jax
import pytest
from jax.sharding import AxisType, PartitionSpec

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import make_mesh, use_mesh
from stair_jax.parallel.rules import replicated, rows_sharding, shardings


def test_the_axes_are_auto_and_one_device_is_enough():
    mesh = make_mesh()
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert mesh.size == 1


def test_too_few_devices_are_an_error():
    with pytest.raises(UserError, match="needs 4 devices, there are 1"):
        make_mesh(data=2, tensor=2, devices=jax.devices()[:1])


def test_logical_axes_become_mesh_axes():
    mesh = make_mesh()
    tree = {"query": PartitionSpec("layers", "embed", "heads", "head_dim")}
    spec = shardings(tree, mesh)["query"].spec
    assert spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert rows_sharding(mesh).spec == PartitionSpec(None, ("data", "fsdp"))
    assert replicated(mesh).spec == PartitionSpec()


def test_the_mesh_is_set_inside_only():
    with use_mesh(make_mesh()):
        assert jax.sharding.get_abstract_mesh().axis_names == ("data", "fsdp", "tensor")
    assert jax.sharding.get_abstract_mesh().empty
