"""Splash attention, interpreted on a CPU against XLA, and compiled for TPUs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.models.attention import splash
from stair_jax.models.attention.backends import get_backend
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh
from stair_jax.planning.topology import get_topology

LENGTH = 130  # padded to two blocks
IDS = np.repeat([[1, 2, 0]], [70, 50, 10], axis=1).repeat(2, axis=0)
# The first segment is a trunk of 20 tokens with two branches, the second one is a path.
ENDS = np.repeat([[70, 40, 70, 120, 0]], [20, 20, 30, 50, 10], axis=1).repeat(2, axis=0)


def gradients(attend, arrays, ids, ends):
    """Gradients of query, key and value, and the outputs."""

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def run(*arrays):
        out = attend(*arrays, ids, ends)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    return run(*arrays)


def drawn(dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, LENGTH, n, 64)).astype(dtype) for n in (4, 2, 2)]


@pytest.mark.parametrize(("ids", "ends"), [(None, None), (IDS, None), (IDS, ENDS)])
def test_the_kernels_compute_what_xla_computes(ids, ends):
    ids, ends = (None if array is None else jnp.asarray(array) for array in (ids, ends))
    found, expected = (
        gradients(attend, drawn("float32"), ids, ends)
        for attend in (partial(splash.attend, interpret=True), get_backend("xla"))
    )
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), found, expected)


def test_in_bfloat16_the_mean_error_is_below_one_rounding():
    trees, arrays = (jnp.asarray(IDS), jnp.asarray(ENDS)), drawn("bfloat16")
    found = gradients(partial(splash.attend, interpret=True), arrays, *trees)
    exact = gradients(get_backend("xla"), [x.astype(np.float32) for x in arrays], *trees)
    for rough, fine in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert rough.dtype == jnp.bfloat16
        error = np.linalg.norm(np.float32(rough) - fine)
        assert error < 2**-8 * np.linalg.norm(fine)


@pytest.mark.parametrize(
    ("chip", "shape", "is_tree"),
    [("v5e:2x2", MeshShape(fsdp=2, tensor=2), True), ("v5p:2x2x1", MeshShape(fsdp=4), False)],
)
def test_compiles_for_tpus_by_default(chip, shape, is_tree):
    """Forward and backward kernels on a mesh; no [T, T] logits are left in the program."""
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    mesh = make_mesh(shape, get_topology(chip).devices)
    rows, length, heads = 4, 1024, 16

    def array(*sizes, dtype=jnp.bfloat16):
        spec = jax.P(("data", "fsdp"), None, "tensor") if len(sizes) > 2 else jax.P("fsdp")
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=jax.NamedSharding(mesh, spec))

    def total(*arrays):
        *arrays, ids, ends = arrays
        out = get_backend("")(*arrays, ids, ends if is_tree else None)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    qkv = [array(rows, length, n, 128) for n in (heads, 2, 2)]
    ints = [array(rows, length, dtype=jnp.int32)] * 2
    with use_mesh(mesh):
        lowered = jax.jit(jax.grad(total, (0, 1, 2))).lower(*qkv, *ints)
        program = lowered.compile()
    assert lowered.as_text().count("tpu_custom_call") >= 3  # forward, and two backward
    scores = (rows // shape.fsdp) * (heads // shape.tensor) * length * length * 4
    assert program.memory_analysis().temp_size_in_bytes < scores
