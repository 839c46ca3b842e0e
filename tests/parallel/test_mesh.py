import jax
import pytest
from jax.sharding import AxisType, PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models.transformer import logical_axes
from stair_jax.parallel.mesh import MeshShape, batch_devices, make_mesh, use_mesh
from stair_jax.parallel.placement import Placement
from stair_jax.parallel.rules import RULES, replicated, rows_sharding, shardings


def test_the_axes_are_auto_and_one_device_is_enough():
    mesh = make_mesh()
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert mesh.size == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (MeshShape(fsdp=-1), (1, 8, 1)),
        (MeshShape(data=-1, tensor=4), (2, 1, 4)),
        (MeshShape(2, 2, -1), (2, 2, 2)),
        (MeshShape(data=3), (3, 1, 1)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(shape, expected):
    mesh = make_mesh(shape)
    assert tuple(mesh.shape.values()) == expected
    assert list(mesh.devices.flat) == jax.devices()[: mesh.size]
    assert batch_devices(mesh) == expected[0] * expected[1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 2, "tensor": 2}, "data 2 x fsdp 1 x tensor 2 needs 4 devices, there are 3"),
        ({"data": 4, "fsdp": -1}, "data 4 x fsdp -1 x tensor 1 needs 4 devices, there are 3"),
        ({"data": 2, "fsdp": -1}, "cannot use all of 3 devices: .* a multiple of 2"),
        ({"data": -1, "fsdp": -1}, "only one axis of a mesh may be -1"),
        ({"tensor": 0}, "tensor of a mesh must be a number of devices or -1 .*, not 0"),
        ({"fsdp": "4"}, "fsdp is '4': it must be a whole number"),
    ],
)
def test_a_mesh_that_cannot_be_is_an_error(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(MeshShape(**sizes), devices=jax.devices()[:3])


def test_logical_axes_become_mesh_axes():
    mesh = make_mesh()
    tree = {"query": PartitionSpec("layers", "embed", "heads", "head_dim")}
    spec = shardings(tree, mesh)["query"].spec
    assert spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert rows_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    assert rows_sharding(mesh, axis=1).spec == PartitionSpec(None, ("data", "fsdp"))
    assert replicated(mesh).spec == PartitionSpec()


def test_every_axis_of_a_parameter_has_a_rule(families):
    known = {name for name, _ in RULES}
    for config in families.values():
        for spec in jax.tree.leaves(logical_axes(config)):
            assert set(spec) <= known, spec


def test_the_mesh_is_set_inside_only():
    with use_mesh(make_mesh()):
        assert jax.sharding.get_abstract_mesh().axis_names == ("data", "fsdp", "tensor")
    assert jax.sharding.get_abstract_mesh().empty


def test_a_placement_without_a_mesh_leaves_arrays_alone():
    array = object()
    nowhere = Placement(None)
    assert nowhere.rows(array) is array and nowhere.whole(array) is array
    assert nowhere.round_up(3) == 3
    assert Placement(make_mesh(MeshShape(2, 2, 2))).round_up(5) == 8
