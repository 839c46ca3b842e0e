"""What is kept of moments: 8 bits, or means of rows and columns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from stair_jax.training.optimizers import eight_bit, factored
from stair_jax.training.optimizers.eight_bit import EightBit, block_size
from stair_jax.training.optimizers.factored import Factored
from stair_jax.training.optimizers.moments import Axis, Plain
from stair_jax.training.optimizers.random_bits import key_of

KEY = key_of(1)
RATIO = 10 ** (12 / 254)  # of two neighbouring codes of the second moment


def kept_zeros(store, shape):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), store.shapes(shape))


def spread(shape, deviation=2.0):
    """Positive values over many decades."""
    return np.exp(deviation * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "block"),
    [(4096, 256), (14336, 256), (896, 112), (4864, 152), (128, 128), (64, 64), (12, 12), (257, 1)],
)
def test_blocks_divide_an_axis_and_where_they_can_the_parts_of_a_mesh(size, block):
    assert block_size(size) == block


def test_vectors_and_axes_without_blocks_have_no_codes():
    assert eight_bit.fits((32, 64)) and not eight_bit.fits((64,)) and not eight_bit.fits((4, 257))
    assert factored.fits((32, 64)) and not factored.fits((64,))


def test_second_moments_in_eight_bits_are_off_by_one_code_at_most():
    store, values = EightBit(signed=False), spread((5, 512))
    values[0, :7] = 0
    values[1, 3] = 1e-20  # far below the smallest code
    kept = store.encode(jnp.asarray(values), KEY)
    assert kept["codes"].dtype == jnp.uint8 and kept["scales"].shape == (5, 8)
    decoded = np.asarray(store.decode(kept))
    assert (decoded[0, :7] == 0).all()
    assert decoded[1, 3] > 0  # zero would make of its update a division by eps
    is_normal = values > 1e-10
    ratio = decoded[is_normal] / values[is_normal]
    assert 1 / RATIO * 0.999 < ratio.min() < 0.99 and 1.01 < ratio.max() < RATIO * 1.001
    largest = values.reshape(5, 8, 64).max(-1)
    np.testing.assert_allclose(decoded.reshape(5, 8, 64).max(-1), largest, rtol=1e-6)


def test_second_moments_in_eight_bits_are_right_in_the_mean():
    store, values = EightBit(signed=False), jnp.asarray(spread((2, 64)))
    draws = 1000
    decoded = jax.vmap(lambda seed: store.decode(store.encode(values, key_of(seed))))(
        jnp.arange(draws)
    )
    deviation = (RATIO - 1) / 2 / draws**0.5
    np.testing.assert_allclose(decoded.mean(axis=0), values, rtol=5 * deviation)


def test_first_moments_in_eight_bits_are_within_half_a_step():
    """In fourth roots of a share of the largest of the block, of which there are 127 steps."""
    store, sizes = EightBit(signed=True), spread((3, 128))
    values = sizes * np.sign(np.random.default_rng(1).standard_normal(sizes.shape))
    kept = store.encode(jnp.asarray(values, jnp.float32), KEY)
    assert kept["codes"].dtype == jnp.int8 and kept["scales"].shape == (3, 1)
    shares = [
        np.asarray(each) / sizes.max(-1, keepdims=True) for each in (values, store.decode(kept))
    ]
    assert (np.sign(shares[0]) == np.sign(shares[1])).all()
    roots = [np.abs(each) ** 0.25 for each in shares]
    np.testing.assert_allclose(roots[1], roots[0], atol=0.5 / 127 + 1e-6)


def test_a_second_moment_in_eight_bits_follows_gradients_that_become_small():
    """The average changes by a thousandth a step: rounded to the nearest code it would stand."""
    store, steps = EightBit(signed=False), 3000
    small = jnp.where(jnp.arange(64) % 2, 1.0, 1e-4)

    def step(number, both):
        kept, exact = both
        kept, _ = store.average(kept, small, 0.999, key_of(number))
        return kept, 0.999 * exact + 0.001 * small

    start = store.encode(jnp.ones((1, 64)), KEY)
    kept, exact = jax.jit(
        lambda start: jax.lax.fori_loop(0, steps, step, (start, jnp.ones((1, 64))))
    )(start)
    ratio = np.asarray(store.decode(kept) / exact)
    assert exact[0, 0] < 0.06
    assert 0.5 < ratio[:, ::2].mean() < 2  # from 1 to 0.05
    np.testing.assert_allclose(ratio[:, 1::2], 1, rtol=1e-3)


def test_scales_are_whole_along_an_axis_whose_parts_split_blocks():
    store = EightBit(signed=True)
    axes = (Axis(32, "tensor", 2), Axis(896, "fsdp", 8))
    both = P("tensor", "fsdp")
    assert store.specs(axes) == {"codes": both, "scales": both}
    axes = (axes[0], Axis(896, "fsdp", 16))
    assert store.specs(axes) == {"codes": both, "scales": P("tensor", None)}


def test_a_factored_moment_is_that_of_optax_on_a_matrix():
    """After one step of Adafactor, whose first decay is zero."""
    gradient = jnp.asarray(np.random.default_rng(0).standard_normal((6, 10)), jnp.float32)
    tx = optax.scale_by_factored_rms(min_dim_size_to_factor=1)
    expected, state = tx.update(gradient, tx.init(gradient), gradient)
    store = Factored()
    kept, moment = store.average(kept_zeros(store, (6, 10)), jnp.square(gradient), 0.0, KEY)
    np.testing.assert_allclose(gradient / jnp.sqrt(moment), expected, rtol=1e-5)
    np.testing.assert_allclose(kept["rows"], state.v_row, rtol=1e-6)
    np.testing.assert_allclose(kept["columns"], state.v_col, rtol=1e-6)


def test_a_factored_average_by_hand():
    store, shape = Factored(), (2, 3)
    kept = kept_zeros(store, shape)
    squares = [np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([[2.0, 0, 1], [0, 0, 3]])]
    for each in squares:
        kept, moment = store.average(kept, jnp.asarray(each, jnp.float32), 0.9, KEY)
    average = 0.9 * 0.1 * squares[0] + 0.1 * squares[1]
    rows, columns = average.mean(1), average.mean(0)
    np.testing.assert_allclose(moment, np.outer(rows, columns) / average.mean(), rtol=1e-5)
    kept, moment = store.average(kept_zeros(store, shape), jnp.zeros(shape), 0.9, KEY)
    assert (moment == 0).all()


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((4096, 32, 128), 1),
        ((32, 128, 4096), 2),
        ((4096, 8, 128), 1),
        ((3, 5), 1),
    ],
)
def test_kernels_are_factored_between_their_sides(shape, cut):
    """Between what they read and what they give, also where one of these has two axes."""
    assert factored.sides(shape) == cut
    shapes = Factored().shapes(shape)
    assert (shapes["rows"].shape, shapes["columns"].shape) == (shape[:cut], shape[cut:])
    axes = tuple(
        Axis(size, name) for size, name in zip(shape, ("fsdp", "tensor", None), strict=False)
    )
    names = [axis.mesh_axes for axis in axes]
    assert Factored().specs(axes) == {"rows": P(*names[:cut]), "columns": P(*names[cut:])}


def test_a_plain_moment_keeps_its_dtype_and_gives_float32():
    store = Plain("bfloat16")
    kept, average = store.average(kept_zeros(store, (3,)), jnp.full(3, 1.003), 0.5, KEY)
    assert kept.dtype == jnp.bfloat16 and average.dtype == jnp.float32
    np.testing.assert_allclose(average, 0.5015, rtol=1e-6)
