"""`config.runtime`: what a config may say, and the sizes that it leaves open."""

import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build


def read(section):
    return build(Runtime, section, "config.runtime")


def test_fields_and_meshes_are_read():
    runtime = read(
        {
            "slots": 16,
            "training_mesh": {"fsdp": -1},
            "decoding_mesh": {"data": 4, "tensor": 2},
        }
    )
    assert (runtime.slots, runtime.steps_per_call) == (16, 8)
    assert runtime.training_mesh == MeshShape(fsdp=-1)
    assert runtime.decoding_mesh == MeshShape(data=4, tensor=2)
    assert read({}) == Runtime()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"slot": 8}, "config.runtime has no field 'slot'"),
        ({"training_mesh": {"model": 2}}, "runtime.training_mesh has no field 'model'"),
        ({"training_mesh": {"fsdp": 0}}, "runtime.training_mesh: fsdp of a mesh must be"),
        ({"steps_per_call": 0}, "runtime.steps_per_call is 0: it must be at least 1"),
        ({"prefill_rows": -1}, "runtime.prefill_rows is -1: it must be at least 0"),
        ({"vocab_multiple": 1.5}, "runtime.vocab_multiple is 1.5: it must be a whole number"),
        (
            {"cluster": "local:2", "training_hosts": 2},
            "training_hosts is 2, and local:2 is this machine alone",
        ),
        ({"attention": "flash"}, "runtime.attention is 'flash': it must be one of"),
    ],
)
def test_a_field_that_cannot_be_is_named(section, message):
    with pytest.raises(UserError, match=message):
        read(section)


def sizes(runtime, platform, shape=None):
    sized = runtime.sized(platform, None if shape is None else make_mesh(shape))
    return sized.slots, sized.trees_in_flight, sized.prefill_rows, sized.prefill_width


@pytest.mark.parametrize(
    ("platform", "shape", "expected"),
    [
        ("cpu", None, (64, 48, 8, 32)),
        ("gpu", None, (256, 192, 16, 128)),
        ("tpu", MeshShape(data=2, fsdp=2, tensor=2), (1024, 768, 64, 128)),
        ("cpu", MeshShape(tensor=8), (64, 48, 8, 32)),
    ],
    ids=str,
)
def test_open_sizes_follow_the_platform_and_the_parts_of_the_mesh(platform, shape, expected):
    assert sizes(Runtime(), platform, shape) == expected


def test_sizes_that_are_set_stay():
    runtime = Runtime(slots=8, trees_in_flight=3, prefill_rows=4, prefill_width=16)
    assert sizes(runtime, "gpu", MeshShape(data=4)) == (8, 3, 4, 16)
    assert sizes(Runtime(slots=1), "cpu") == (1, 1, 8, 32)  # one slot has room for one tree


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (Runtime(slots=12), "runtime.slots is 12: it must be a multiple of 8, data x fsdp of the"),
        (Runtime(prefill_rows=6), "runtime.prefill_rows is 6: it must be a multiple of 8"),
    ],
)
def test_a_size_that_the_mesh_cannot_split_is_named(runtime, message):
    mesh = make_mesh(MeshShape(data=4, fsdp=2))
    with pytest.raises(UserError, match=message):
        runtime.sized("cpu", mesh)
