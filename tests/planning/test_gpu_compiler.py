"""Compilation for GPUs that are not there; skipped where the compiler for CUDA is not installed."""

import jax
import jax.numpy as jnp
import pytest

from stair_jax.models.attention import backends, cudnn
from stair_jax.parallel.chips import is_here
from stair_jax.parallel.gpus import GPUS
from stair_jax.parallel.mesh import make_mesh
from stair_jax.parallel.rules import replicated
from stair_jax.planning import workspaces
from stair_jax.planning.gpu_compiler import describe, is_described, standing_in
from stair_jax.planning.program import Program, compile_program

ROWS, LENGTH, HEADS, HEAD_DIM = 2, 128, 4, 64
MIB = 2**20


def attention(mesh, packed):
    """The gradient of attention over rows of segments, or of whole rows."""

    def loss(query, key, value, segments):
        attend = backends.get_backend("")
        return jnp.sum(attend(query, key, value, segments if packed else None) ** 2)

    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=replicated(mesh))

    rows = [shape(ROWS, LENGTH, HEADS, HEAD_DIM)] * 3
    function = jax.jit(jax.grad(loss, (0, 1, 2)))
    return Program("attention", function, (*rows, shape(ROWS, LENGTH, dtype=jnp.int32)), mesh, 0, 0)


@pytest.mark.parametrize(("packed", "sequences"), [(False, 1), (True, 16)])
def test_a_backward_pass_has_a_workspace(gpus, monkeypatch, packed, sequences):
    """Float32 sums of the queries' gradients, and a float32 a query, for each possible segment."""
    mesh = make_mesh(devices=gpus("h100").devices)

    def temporaries():
        return compile_program(attention(mesh, packed)).footprint.temporaries

    size = 4 * ROWS * sequences * HEADS * LENGTH * (HEAD_DIM + 1)
    found = temporaries()
    monkeypatch.setattr(workspaces, "backward_bytes", lambda *shapes: 0)
    without = temporaries()
    assert without < found <= without + size + MIB
    monkeypatch.setattr(workspaces, "backward_bytes", lambda *shapes: 64 * MIB)
    assert 64 * MIB <= temporaries() <= without + 65 * MIB


@pytest.mark.parametrize(("name", "is_masked"), [("h100", False), ("a100-80gb", True)])
def test_packed_rows_are_masked_before_hopper(gpus, name, is_masked):
    """The kernels for packed rows need compute capability 9.0: before, the mask is a bias."""
    text = attention(make_mesh(devices=gpus(name).devices), True).lower().as_text()
    assert "__cudnn$fmha" in text
    assert ("__cudnn$fmhaScaleBiasSoftmax" in text) == is_masked


def test_a_hand_counted_workspace():
    shapes = (2, 128, 4, 64), (2, 128, 4, 64), (2 * 16, 4, 128)
    assert workspaces.backward_bytes(*shapes) == 4 * 2 * 16 * 4 * 128 * (64 + 1)
    shared = workspaces.backward_bytes(shapes[0], (2, 128, 2, 64), shapes[2])
    assert shared - workspaces.backward_bytes(*shapes) == 2 * 2 * 2 * 128 * 4 * 64


@pytest.mark.parametrize(
    ("query", "kv_heads", "segments", "found"),
    [
        ((4, 2048, 32, 128), 32, 32, 4328571904),  # 8B, packed rows
        ((8, 1024, 32, 128), 32, 16, 2164311040),
        ((16, 2048, 14, 64), 14, 32, 3817014272),  # 0.5B
        ((4, 4096, 14, 64), 14, 64, 3816915968),
        ((8, 2048, 32, 64), 32, 32, 4362175488),  # 1B
        ((4, 2048, 32, 128), 8, 1, 269484288),  # 8B, pairs as trees: a mask, and shared heads
    ],
)
def test_workspaces_that_cudnn_asked_for_on_an_h200(query, kv_heads, segments, found):
    """As read in compiled programs by `benchmarks/memory.py`, 2026-11-30, jax 0.11.2."""
    rows, length, heads, head_dim = query
    key = (rows, length, kv_heads, head_dim)
    counted = workspaces.backward_bytes(query, key, (rows * segments, heads, length))
    assert counted == pytest.approx(found, rel=2e-4) and counted <= found


def test_what_stands_in_for_a_gpu_is_gone_afterwards(gpus):
    (device,) = gpus("l4").devices
    module = cudnn.importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    before = module.check_compute_capability
    with pytest.raises(ZeroDivisionError), standing_in(device):
        assert module.check_compute_capability("8.9")
        assert not module.check_compute_capability("9.0")
        assert not module.check_compute_capability("10.0")
        raise ZeroDivisionError
    assert module.check_compute_capability is before


def test_a_described_gpu_is_not_here(gpus):
    (device,) = gpus("h100").devices
    assert is_described(device) and not is_here(device)
    assert not any(map(is_described, jax.devices()))


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_can_be_described(name):
    text = describe(GPUS[name])
    assert f'device_description_str: "{GPUS[name].kind}"' in text
    assert text.count("{") == text.count("}")
