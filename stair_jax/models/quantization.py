"""Matrix products, plain or in 8 bits: kernels quantized once, activations per product.

Products contract the last axis of both operands. GPUs require that of 8-bit operands, and TPUs
would otherwise transpose kernels with several output axes at each product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Largest finite value of each dtype, to which the largest value of a row is scaled.
LIMITS = {"float8_e4m3fn": 448.0, "int8": 127.0}
# A row of smaller values is treated as zeros, since its scale must be a normal float32.
_SMALLEST = 1e-30


class Quantized(NamedTuple):
    """8-bit values with a scale per row.

    The last axis is contracted by products, so that each output channel of a kernel has a scale,
    and so has each token of the activations.

    Attributes:
        values: [..., K] float8_e4m3fn or int8.
        scale: [...] float32; the numbers are `values * scale[..., None]`.
    """

    values: jax.Array
    scale: jax.Array


def quantize(array: jax.Array, dtype: jax.typing.DTypeLike) -> Quantized:
    """Symmetric quantization, rounding to nearest, with a scale per row.

    Zeros stay zeros, and the largest value of a row becomes the largest of the dtype. The error is
    at most scale / 2 in int8; in float8_e4m3fn at most 1/16 of the value, or scale / 1024 if that
    is more.

    Args:
        array: [..., K].
        dtype: a key of `LIMITS`.
    """
    dtype = jnp.dtype(dtype)
    wide = array.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=-1)
    scale = jnp.maximum(largest, _SMALLEST) / LIMITS[dtype.name]
    values = wide / scale[..., None]
    if dtype == jnp.int8:
        values = jnp.round(values)
    return Quantized(values.astype(dtype), scale)


def matmul(inputs: jax.Array, kernel: jax.Array | Quantized) -> jax.Array:
    """The product of inputs[M, K] with a kernel[..., K], plain or quantized: [M, ...].

    With a quantized kernel, each row of the inputs is quantized to its dtype, and the scales are
    applied to the product; on a mesh, scales are those of whole rows. Integer sums are exact up to
    2**17 terms.

    Returns:
        [M, ...] in the dtype of `inputs`.
    """
    if not isinstance(kernel, Quantized):
        return _product(inputs, kernel, inputs.dtype)
    rows = quantize(inputs, kernel.values.dtype)
    dtype = _accumulator(kernel.values.dtype, inputs.dtype)
    product = _product(rows.values, kernel.values, dtype).astype(jnp.float32)
    row_scale = jnp.expand_dims(rows.scale, tuple(range(1, product.ndim)))
    return (product * row_scale * kernel.scale).astype(inputs.dtype)


def _product(rows: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> jax.Array:
    shape = kernel.shape[:-1]
    # Flattened, as XLA may transpose a kernel with several output axes. But if it is split along an
    # inner axis, flattening would move data.
    if jax.sharding.get_abstract_mesh().shape.get("tensor", 1) == 1:
        kernel = kernel.reshape(-1, kernel.shape[-1])
    dimensions = (((1,), (kernel.ndim - 1,)), ((), ()))
    product = jax.lax.dot_general(rows, kernel, dimensions, preferred_element_type=dtype)
    return product.reshape(len(rows), *shape)


def _accumulator(dtype: jnp.dtype, inputs: jnp.dtype) -> jnp.dtype:
    """The dtype in which an 8-bit product is returned, before it is scaled."""
    if dtype == jnp.int8:
        return jnp.dtype(jnp.int32)
    # Sums of float8 products exceed the range of float16; bfloat16 halves the bytes written.
    return inputs if inputs == jnp.bfloat16 else jnp.dtype(jnp.float32)
