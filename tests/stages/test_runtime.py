import pytest
from ml_collections import FrozenConfigDict
from stair_jax.stages.engines import decoding_mesh
from stair_jax.stages.runtime import Runtime

from stair_jax.errors import UserError
from stair_jax.parallel.mesh import MeshShape, make_mesh


def test_nothing_given_is_one_device():
    runtime = Runtime.read(FrozenConfigDict({}))
    assert runtime == Runtime()
    assert make_mesh(runtime.training_mesh).size == 1
    assert decoding_mesh(runtime) is None


def test_fields_and_meshes_are_read():
    section = {
        "slots": 16,
        "training_mesh": {"fsdp": -1},
        "decoding_mesh": {"data": 4, "tensor": 2},
    }
    runtime = Runtime.read(FrozenConfigDict(section))
    assert (runtime.slots, runtime.steps_per_call) == (16, 8)
    assert runtime.training_mesh == MeshShape(fsdp=-1)
    assert decoding_mesh(runtime).shape == {"data": 4, "fsdp": 1, "tensor": 2}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"slot": 8}, "runtime has no field 'slot'"),
        ({"training_mesh": {"model": 2}}, "runtime.training_mesh has no field 'model'"),
        ({"prefill_rows": 0}, "runtime.prefill_rows must be a whole number of at least 1, not 0"),
        ({"vocab_multiple": 1.5}, "runtime.vocab_multiple must be a whole number"),
        ({"slots": 12, "decoding_mesh": {"data": 8}}, "runtime.slots is 12: .* a multiple of 8"),
        (
            {"prefill_rows": 6, "decoding_mesh": {"data": 4}},
            "runtime.prefill_rows is 6: .* a multiple of 4, data x fsdp of runtime.decoding_mesh",
        ),
        ({"decoding_mesh": {"data": 64}}, "needs 64 devices, there are 8"),
    ],
)
def test_a_field_that_cannot_be_is_named(section, message):
    with pytest.raises(UserError, match=message):
        decoding_mesh(Runtime.read(section))
