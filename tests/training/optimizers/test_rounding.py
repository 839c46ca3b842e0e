"""Random bits, and the two ways from float32 to bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stair_jax.parallel.mesh import MeshShape, make_mesh
from stair_jax.training.optimizers.random_bits import key_of, random_bits
from stair_jax.training.optimizers.rounding import split_sum, stochastically_rounded

DRAWS = 2**14


def wide(array):
    return np.asarray(array.astype(jnp.float32), np.float64)


def test_each_random_bit_is_a_fair_coin_and_no_key_knows_of_another():
    first, second = (np.asarray(random_bits(key_of(7, step), (DRAWS,))) for step in (1, 2))
    places = np.arange(32, dtype=np.uint32)
    coins = [(bits[:, None] >> places) & 1 for bits in (first, second)]
    bound = 5 * 0.5 / DRAWS**0.5  # five standard deviations
    for of_key in coins:
        np.testing.assert_allclose(of_key.mean(axis=0), 0.5, atol=bound)
    np.testing.assert_allclose((coins[0] ^ coins[1]).mean(axis=0), 0.5, atol=bound)
    np.testing.assert_allclose((coins[0][1:] ^ coins[0][:-1]).mean(axis=0), 0.5, atol=bound)
    assert len(np.unique(first)) > 0.999 * DRAWS
    assert int(key_of(1, 2)) != int(key_of(2, 1))


def test_random_bits_are_the_same_on_any_mesh_and_made_where_they_are_used():
    mesh = make_mesh(MeshShape(data=1, fsdp=4, tensor=2))
    sharding = NamedSharding(mesh, P("fsdp", None, "tensor"))
    key, shape = jnp.uint32(5), (8, 3, 6)
    make = jax.jit(lambda key: random_bits(key, shape), out_shardings=sharding)
    np.testing.assert_array_equal(make(key), random_bits(key, shape))
    program = make.lower(key).compile().as_text()
    assert "u32[2,3,3]" in program and "u32[8,3,6]" not in program


def test_stochastic_rounding_is_right_in_the_mean():
    below, above = 1.0, 1.0 + 2**-7  # neighbours in bfloat16
    shares = np.array([0.0, 0.01, 0.3, 0.5, 0.9])
    values = np.float32(below + shares * (above - below))
    for sign in (1, -1):
        given = jnp.tile(sign * values, (DRAWS, 1))
        rounded = wide(stochastically_rounded(given, random_bits(key_of(3), given.shape)))
        assert set(np.unique(sign * rounded)) == {below, above}
        up = (sign * rounded == above).mean(axis=0)
        np.testing.assert_allclose(up, shares, atol=4 * 0.5 / DRAWS**0.5)
        assert up[0] == 0  # what bfloat16 can hold stays


def test_stochastic_rounding_keeps_what_is_not_finite():
    values = jnp.array([np.inf, -np.inf, np.nan, 0.0, -0.0], jnp.float32)
    most = jnp.full(values.shape, 0xFFFFFFFF, jnp.uint32)
    np.testing.assert_array_equal(wide(stochastically_rounded(values, most)), values)
    nan = jax.lax.bitcast_convert_type(jnp.full(1, 0xFFFFFFFF, jnp.uint32), jnp.float32)
    assert np.isnan(wide(stochastically_rounded(nan, most[:1])))


def test_a_split_sum_holds_sixteen_bits():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    kept, lost = jax.jit(split_sum)(values)
    assert kept.dtype == lost.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kept, jnp.asarray(values).astype(jnp.bfloat16))
    np.testing.assert_allclose(wide(kept) + wide(lost), values, rtol=2**-16)
    assert np.abs(wide(kept) / values - 1).max() > 2**-10
