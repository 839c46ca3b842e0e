import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.parallel.rules import rows_sharding
from stair_jax.planning.program import Program, compile_program, shortened

KIB = 1024


def shape(rows, sharding):
    return jax.ShapeDtypeStruct((rows, 256), jnp.float32, sharding=sharding)  # 1 KiB per row


@jax.jit
def add(x, y):
    return x + y


def test_the_footprint_of_a_program():
    device = jax.devices()[0]
    x = shape(4, SingleDeviceSharding(device))
    beside = (shape(16, SingleDeviceSharding(device)),)
    program = Program("add", add, (x, x), device, 0, 0, beside)
    footprint = compile_program(program).footprint
    assert footprint.arguments == 8 * KIB
    assert footprint.outputs == 4 * KIB
    assert footprint.beside == 16 * KIB
    assert footprint.total == 28 * KIB + footprint.temporaries + footprint.code
    assert program.num_chips == 1


def test_bytes_are_those_of_one_device_of_a_mesh():
    mesh = make_mesh(MeshShape(data=2, fsdp=4))
    x = shape(16, rows_sharding(mesh))
    program = Program("add", add, (x, x), mesh, 0, 0)
    footprint = compile_program(program).footprint
    assert footprint.arguments == 4 * KIB
    assert program.num_chips == 8


def test_an_output_over_an_argument_counts_once():
    device = jax.devices()[0]
    x = shape(4, SingleDeviceSharding(device))
    donating = jax.jit(lambda x, y: x + y, donate_argnums=0)
    footprint = compile_program(Program("add", donating, (x, x), device, 0, 0)).footprint
    assert footprint.outputs == 0


def test_equal_programs_have_equal_keys():
    device, other = jax.devices()[:2]
    x = shape(4, SingleDeviceSharding(device))
    program = Program("one", add, (x, x), device, 0, 0)
    same = Program("other name", add, (shape(4, SingleDeviceSharding(device)), x), device, 1, 1)
    assert program.key == same.key and hash(program.key) == hash(same.key)
    different = [
        Program("one", jax.jit(lambda x, y: x), (x, x), device, 0, 0),
        Program("one", add, (shape(5, SingleDeviceSharding(device)), x), device, 0, 0),
        Program("one", add, (shape(4, SingleDeviceSharding(other)), x), device, 0, 0),
        Program("one", add, ([x], [x]), device, 0, 0),
    ]
    for program in different:
        assert program.key != same.key


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (298.12G) exceeds available HBM (15.75G).",
            "the compiler needs 298.12G of 15.75G",
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 17.93G of 15.75G hbm. Exceeded hbm capacity by 2.18G.\n\nTotal ...",
            "the compiler needs 17.93G of 15.75G",
        ),
        ("RESOURCE_EXHAUSTED: out of registers\nat ...", "RESOURCE_EXHAUSTED: out of registers"),
    ],
)
def test_what_the_compiler_says_is_shortened(message, said):
    assert shortened(message) == said


def refusing(message):
    class Function:
        def lower(self, *arguments):
            raise jax.errors.JaxRuntimeError(message)

    return Program("refused", Function(), (), jax.devices()[0], 0, 0)


def test_a_lack_of_memory_is_a_result_and_other_errors_are_not():
    compiled = compile_program(refusing("RESOURCE_EXHAUSTED: Used 2.00G of 1.00G hbm."))
    assert compiled.footprint is None
    assert compiled.reason == "the compiler needs 2.00G of 1.00G"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_program(refusing("INTERNAL: a fault"))


def test_buffers_that_take_turns_count_once(tpu):
    """In a chain of products only two of the four intermediates are live at a time."""
    device = tpu("v5e:1x1").devices[0]
    x = jax.ShapeDtypeStruct((2048, 2048), jnp.float32, sharding=SingleDeviceSharding(device))

    @jax.jit
    def chain(x):
        for _ in range(4):
            x = (x + 1) @ x
        return x

    footprint = compile_program(Program("chain", chain, (x,), device, 0, 0)).footprint
    size = 4 * 2048**2
    assert (footprint.arguments, footprint.outputs) == (size, size)
    assert footprint.temporaries <= 3 * size
