"""Matrix products, and those of 8 bits: kernels quantized once, activations at each product.

The products run over the last axis of both operands. That is how GPUs want operands of 8 bits and
how TPUs want kernels whose outputs have several axes: others they transpose at each product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# The largest number of each dtype, which a scale brings the largest of a row to.
LIMITS = {"float8_e4m3fn": 448.0, "int8": 127.0}
# A row of smaller numbers is taken for zeros: a scale must be a normal float32.
_SMALLEST = 1e-30


class Quantized(NamedTuple):
    """Numbers of 8 bits: each stands for itself times the scale of its row.

    The last axis is the one that a product runs over, so each output channel of a kernel has a
    scale of its own, as each token has.

    Attributes:
        values: [..., K], float8_e4m3fn or int8.
        scale: [...] float32.
    """

    values: jax.Array
    scale: jax.Array


def quantize(array: jax.Array, dtype: jax.typing.DTypeLike) -> Quantized:
    """Symmetric quantization of `array[..., K]` to the nearest, with a scale for each row.

    Zeros stay zeros, and the largest of a row becomes the largest of the dtype. An entry is off by
    at most half a scale in int8; in float8_e4m3fn by 1/16 of itself, or by scale / 1024 where that
    is more.
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
    """Products of `inputs[M, K]` with a kernel `[..., K]`, plain or quantized: `[M, ...]`.

    With a quantized kernel, the inputs are quantized to its dtype, each row by its own largest
    number, and the scales are applied to the product; on a mesh these are of whole rows. Integer
    products are exact up to 2**17 terms. The result has the dtype of `inputs`.
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
    # Of a kernel with more axes, XLA may transpose the whole; but one that is split along an inner
    # axis cannot be flattened where it lies.
    if jax.sharding.get_abstract_mesh().shape.get("tensor", 1) == 1:
        kernel = kernel.reshape(-1, kernel.shape[-1])
    dimensions = (((1,), (kernel.ndim - 1,)), ((), ()))
    product = jax.lax.dot_general(rows, kernel, dimensions, preferred_element_type=dtype)
    return product.reshape(len(rows), *shape)


def _accumulator(dtype: jnp.dtype, inputs: jnp.dtype) -> jnp.dtype:
    """What a product of 8 bits is written in, before it is scaled."""
    if dtype == jnp.int8:
        return jnp.dtype(jnp.int32)
    # The sums of float8 do not fit into float16; bfloat16 halves the bytes written.
    return inputs if inputs == jnp.bfloat16 else jnp.dtype(jnp.float32)
