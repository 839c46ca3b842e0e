"""The sharded embedding lookup and its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.models.embedding import look_up
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh


def total(table, tokens, weights, dtype):
    rows = look_up(table, tokens, dtype)
    return jnp.sum(rows * weights), rows


def arrays():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((24, 16)).astype(np.float32)
    tokens = rng.integers(0, 24, (8, 5)).astype(np.int32)
    return table, tokens, rng.standard_normal((8, 5, 16)).astype(np.float32)


@pytest.mark.parametrize("shape", [MeshShape(2, 2, 2), MeshShape(1, 8, 1), MeshShape(1, 1, 4)])
def test_rows_and_gradients_on_a_mesh(shape):
    table, tokens, weights = arrays()
    mesh = make_mesh(shape)
    table_sharding = rules.shardings(jax.P("vocab", "embed"), mesh)
    rows = rules.rows_sharding(mesh)
    grad = jax.jit(
        jax.grad(partial(total, dtype="float32"), has_aux=True),
        in_shardings=(table_sharding, rows, rows),
        out_shardings=(table_sharding, rows),
    )
    with use_mesh(mesh):
        gradient, found = grad(table, tokens, weights)
        text = grad.lower(table, tokens, weights).compile().as_text()
    np.testing.assert_array_equal(found, table[tokens])
    expected = np.zeros_like(table)
    np.add.at(expected, tokens, weights)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    # Neither the table nor its gradient is whole on any device.
    assert "f32[24,16]" not in text


def test_rows_that_cannot_be_split_and_rounding():
    table, tokens, _ = arrays()
    with use_mesh(make_mesh(MeshShape(2, 2, 2))):
        found = jax.jit(look_up, static_argnums=2)(table, tokens[:3], "bfloat16")
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, table[tokens[:3]].astype(jnp.bfloat16))
