"""8-bit quantization and products, with bounds on their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stair_jax.models.quantization import LIMITS, Quantized, matmul, quantize
from stair_jax.parallel.mesh import MeshShape, make_mesh, use_mesh

ROWS = arrays.arrays(
    np.float32,
    (4, 6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


def restored(quantized):
    values = np.asarray(quantized.values.astype(jnp.float32), np.float64)
    return values * np.asarray(quantized.scale, np.float64)[..., None]


def test_int8_by_hand():
    found = quantize(jnp.array([[12.7, -1.04, 0.05, 0.0], [0.0, 0.0, 0.0, 0.0]]), jnp.int8)
    np.testing.assert_array_equal(found.values, [[127, -10, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(found.scale[0], 0.1, rtol=1e-6)


def test_float8_by_hand():
    """With a maximum of 448 the scale is 1; 3 mantissa bits, smallest step 2**-9."""
    row = [448.0, -3.3, 17.0, 0.0021, 0.0009, 0.0]
    found = quantize(jnp.array([row]), "float8_e4m3fn")
    assert found.scale.tolist() == [1.0]
    expected = [448.0, -3.25, 16.0, 2.0**-9, 0.0, 0.0]
    assert found.values[0].astype(jnp.float32).tolist() == expected


@given(ROWS)
def test_int8_is_off_by_half_a_scale_at_most(rows):
    found = quantize(rows, jnp.int8)
    scale = np.asarray(found.scale, np.float64)[:, None]
    assert np.all(np.abs(restored(found) - rows) <= 0.5001 * scale)
    check_rows(rows, found)


@given(ROWS)
def test_float8_is_off_by_a_sixteenth_at_most(rows):
    found = quantize(rows, "float8_e4m3fn")
    scale = np.asarray(found.scale, np.float64)[:, None]
    bound = np.maximum(np.abs(rows.astype(np.float64)) / 16, scale / 1024)
    assert np.all(np.abs(restored(found) - rows) <= 1.0001 * bound)
    check_rows(rows, found)


def check_rows(rows, found):
    """Zeros stay, the maximum is the limit, signs agree, and quantizing again changes nothing."""
    values = np.asarray(found.values.astype(jnp.float32))
    limit = LIMITS[found.values.dtype.name]
    assert not values[rows == 0].any()
    assert np.all((values == 0) | (np.sign(values) == np.sign(rows)))
    largest = np.abs(rows).max(axis=1)
    np.testing.assert_array_equal(np.abs(values).max(axis=1)[largest > 1e-29], limit)
    again, flipped = quantize(rows, found.values.dtype), quantize(-rows, found.values.dtype)
    np.testing.assert_array_equal(again.values.astype(jnp.float32), values)
    np.testing.assert_array_equal(flipped.values.astype(jnp.float32), -values)
    np.testing.assert_array_equal(flipped.scale, found.scale)


def operands(dtype, outputs=(3, 5), terms=200, rows=7):
    """Inputs with rows of very different scale and one of zeros, and a kernel, in float64."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, terms)) * 10.0 ** np.arange(-4, rows - 4)[:, None]
    inputs[2] = 0
    kernel = rng.normal(size=(*outputs, terms)) * rng.uniform(0.1, 10, (*outputs, 1))
    kernel[0, 0] = 0
    return jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bits", LIMITS)
def test_a_product_is_that_of_the_quantized_numbers(bits, dtype):
    """Up to the rounding of its sums and of the result."""
    inputs, kernel = operands(dtype)
    quantized, rows = quantize(kernel, bits), quantize(inputs, bits)
    found = matmul(inputs, quantized)
    assert found.dtype == inputs.dtype and found.shape == (7, 3, 5)
    terms = np.einsum("mk,abk->mabk", restored(rows), restored(quantized))
    expected, size = terms.sum(axis=-1), np.abs(terms).sum(axis=-1)
    eps = float(jnp.finfo(dtype).eps)
    small = float(jnp.finfo(dtype).smallest_subnormal)
    bound = eps * np.abs(expected) + 200 * 2.0**-23 * size + small
    assert np.all(np.abs(np.asarray(found, np.float64) - expected) <= bound)
    assert not found[2].any() and not found[:, 0, 0].any()
    np.testing.assert_array_equal(found, matmul(inputs, quantized))


@pytest.mark.parametrize("bits", LIMITS)
def test_a_product_is_within_the_bound_of_its_quantization(bits):
    inputs, kernel = operands("float32")
    rows, quantized = quantize(inputs, bits), quantize(kernel, bits)
    found = np.asarray(matmul(inputs, quantized), np.float64)
    x, w = np.asarray(inputs, np.float64), np.asarray(kernel, np.float64)
    off_x, off_w = (entry_bound(a, q) for a, q in ((x, rows), (w, quantized)))
    # |x'w' - xw| <= |x| dw + dx |w| + dx dw, summed over the contracted axis.
    bound = np.einsum("mk,abk->mab", np.abs(x) + off_x, np.abs(w) + off_w)
    bound -= np.einsum("mk,abk->mab", np.abs(x), np.abs(w))
    error = np.abs(found - np.einsum("mk,abk->mab", x, w))
    assert np.all(error <= bound * 1.001)
    size = np.linalg.norm(x, axis=1)[:, None, None] * np.linalg.norm(w, axis=-1)
    assert error.sum() / size.sum() < {"int8": 0.01, "float8_e4m3fn": 0.05}[bits]


def entry_bound(array, quantized):
    scale = np.asarray(quantized.scale, np.float64)[..., None]
    if quantized.values.dtype == jnp.int8:
        return np.broadcast_to(scale / 2, array.shape)
    return np.maximum(np.abs(array) / 16, scale / 1024)


def test_a_plain_kernel_is_a_plain_product():
    inputs, kernel = operands("float32")
    expected = np.einsum("mk,abk->mab", *(np.asarray(a, np.float64) for a in (inputs, kernel)))
    np.testing.assert_allclose(matmul(inputs, kernel), expected, rtol=1e-5, atol=1e-3)
    assert matmul(inputs, jnp.zeros((2, 200), jnp.float32)).shape == (7, 2)


def test_scales_are_those_of_whole_rows_on_a_mesh():
    """A contraction that is split over devices is bitwise equal to that of one device."""
    inputs, kernel = operands("float32", outputs=(2, 6), terms=64, rows=8)
    quantized = quantize(kernel, "int8")
    expected = jax.jit(matmul)(inputs, quantized)
    mesh = make_mesh(MeshShape(data=2, tensor=4))
    for rows, outputs, terms in ((None, None, "tensor"), ("data", None, "tensor")):
        values = NamedSharding(mesh, P(None, outputs, terms))
        scale = NamedSharding(mesh, P(None, outputs))
        placed = Quantized(
            jax.device_put(quantized.values, values), jax.device_put(quantized.scale, scale)
        )
        with use_mesh(mesh):
            split = jax.device_put(inputs, NamedSharding(mesh, P(rows, terms)))
            program = jax.jit(matmul).lower(split, placed).compile()
            np.testing.assert_array_equal(program(split, placed), expected)
        assert "all-reduce" in program.as_text()
        assert "all-gather" not in program.as_text()
