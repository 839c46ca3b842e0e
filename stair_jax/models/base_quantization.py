"""A frozen base in 4 or 8 bits: kernels in blocks, with a scale each (QLoRA, arXiv 2305.14314).

A kernel is quantized along an axis that its product contracts, in blocks of 64 or, where 64 does
not divide the axis, of their greatest common divisor. With `ModelConfig.base_weights` the layers
hold, in place of each kernel NAME [L, ..., K, ...],

    NAME_values [L, ..., K, ...] "int8": int8; "fp8": uint8, the bits of float8_e4m3fn;
                "nf4": uint8 [L, ..., K / 2, ...], two codes each, the first in the lower four bits
    NAME_scales [L, ..., K / block, ...] float32

with the logical axes of the kernel. Everything else is as in the plain model. Products dequantize
a kernel where it is used, forward and backward, so that plain weights of one layer at most exist.
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stair_jax.models.quantization import LIMITS

BASE_WEIGHTS = ("none", "nf4", "int8", "fp8")
BLOCK = 64
VALUES, SCALES = "_values", "_scales"

# The axis of each kernel along which its blocks lie, from behind: that before the outputs.
AXES: Mapping[str, int] = {
    "query": -3,
    "key": -3,
    "value": -3,
    "out": -2,
    "gate": -2,
    "up": -2,
    "down": -2,
}

# The values of the 16 codes of NormalFloat (arXiv 2305.14314, appendix E): quantiles of a normal
# distribution, scaled to [-1, 1], with a zero.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)

# How values are stored: float8 by its bits, as XLA may move conversions of a stack of float8 out of
# the loop over the layers, which would hold all of them in 16 bits.
_STORED = {"nf4": "uint8", "int8": "int8", "fp8": "uint8"}
_NUMBERS = {"int8": "int8", "fp8": "float8_e4m3fn"}
# A block of smaller values is treated as zeros, since its scale must be a normal float32.
_SMALLEST = 1e-30
_SPREAD = 3.0  # standard deviations that random kernels are cut at


class BlockQuantized(NamedTuple):
    """A kernel in blocks, or several of one shape with leading axes: see the module."""

    values: jax.Array
    scales: jax.Array


def is_quantized(name: str) -> bool:
    """Whether a parameter of this name is a part of a quantized kernel."""
    return name.endswith((VALUES, SCALES))


def values_dtype(kind: str) -> str:
    """The dtype of the values, of a kind of `BASE_WEIGHTS`."""
    return _STORED[kind]


def block_size(size: int) -> int:
    """Numbers of a block along an axis of `size`."""
    return math.gcd(BLOCK, size)


def quantized_shapes(
    kind: str, shape: tuple[int, ...], axis: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of values and scales.

    Args:
        kind: of `BASE_WEIGHTS`, but "none".
        shape: of the kernel.
        axis: of the blocks, from behind.
    """
    values, scales = list(shape), list(shape)
    values[axis] //= 2 if kind == "nf4" else 1
    scales[axis] //= block_size(shape[axis])
    return tuple(values), tuple(scales)


def quantize_blockwise(kind: str, kernel: jax.Array, axis: int) -> BlockQuantized:
    """Quantizes a kernel, each number to the nearest of its block.

    The largest of a block in absolute value becomes that of the format, so that the error of a
    number is at most its block's largest times 0.152 ("nf4": half of the widest gap between codes)
    or times 1/254 ("int8"), and in "fp8" at most 1/16 of the number, or the largest of the block
    / 2**18.8 if that is more.

    Args:
        kind: of `BASE_WEIGHTS`, but "none".
        kernel: any floating dtype.
        axis: of the blocks, from behind; even in length for "nf4".
    """
    wide = _split(kernel.astype(jnp.float32), axis, block_size(kernel.shape[axis]))
    largest = jnp.max(jnp.abs(wide), axis=axis, keepdims=True)
    scales = jnp.maximum(largest, _SMALLEST) / _limit(kind)
    values = _encode(kind, (wide / scales).reshape(kernel.shape), axis)
    return BlockQuantized(values, jnp.squeeze(scales, axis))


def dequantize(
    kind: str, kernel: BlockQuantized, axis: int, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """The kernel of `quantize_blockwise`, multiplied in float32 and rounded once to `dtype`."""
    values = _decode(kind, kernel.values, axis)
    blocks = kernel.scales.shape[axis]
    wide = _split(values, axis, values.shape[axis] // blocks)
    return (wide * jnp.expand_dims(kernel.scales, axis)).reshape(values.shape).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 4))
def product(
    kind: str, spec: str, inputs: jax.Array, kernel: BlockQuantized, axis: int
) -> jax.Array:
    """The product of the inputs with a quantized kernel, in the dtype of the inputs.

    The backward pass dequantizes again, whatever else is kept for it. There are no gradients of the
    kernel.

    Args:
        kind: of `BASE_WEIGHTS`, but "none".
        spec: the product, for einsum.
        inputs: what is multiplied.
        kernel: of one layer.
        axis: of the blocks, from behind.
    """
    return jnp.einsum(spec, inputs, dequantize(kind, kernel, axis, inputs.dtype))


def _forward(
    kind: str, spec: str, inputs: jax.Array, kernel: BlockQuantized, axis: int
) -> tuple[jax.Array, BlockQuantized]:
    return product(kind, spec, inputs, kernel, axis), kernel


def _backward(
    kind: str, spec: str, axis: int, kernel: BlockQuantized, gradient: jax.Array
) -> tuple[jax.Array, None]:
    operands, outputs = spec.split("->")
    inputs, weights = operands.split(",")
    plain = dequantize(kind, kernel, axis, gradient.dtype)
    return jnp.einsum(f"{outputs},{weights}->{inputs}", gradient, plain), None


product.defvjp(_forward, _backward)


def random_values(kind: str, key: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """The values of a random kernel: normal numbers; with `random_scale` as the scale of all.

    Args:
        kind: of `BASE_WEIGHTS`, but "none".
        key: of the draws.
        shape: of the kernel.
        axis: of the blocks, from behind.
    """
    draws = jax.random.normal(key, shape) * (_limit(kind) / _SPREAD)
    return _encode(kind, jnp.clip(draws, -_limit(kind), _limit(kind)), axis)


def random_scale(kind: str, deviation: float) -> float:
    """The scale with which `random_values` have about this standard deviation."""
    return deviation * _SPREAD / _limit(kind)


def _limit(kind: str) -> float:
    """The largest number of a format."""
    return 1.0 if kind == "nf4" else LIMITS[_NUMBERS[kind]]


def _split(array: jax.Array, axis: int, size: int) -> jax.Array:
    """Splits an axis (from behind) in two, of which `axis` is the inner one, of `size`."""
    place = array.ndim + axis
    shape = array.shape
    return array.reshape(*shape[:place], shape[place] // size, size, *shape[place + 1 :])


def _encode(kind: str, numbers: jax.Array, axis: int) -> jax.Array:
    """Numbers within +-`_limit` as values, to the nearest."""
    if kind == "nf4":
        return _pack(_nearest_codes(numbers), axis)
    rounded = jnp.round(numbers) if kind == "int8" else numbers
    return jax.lax.bitcast_convert_type(rounded.astype(_NUMBERS[kind]), jnp.dtype(_STORED[kind]))


def _decode(kind: str, values: jax.Array, axis: int) -> jax.Array:
    """The numbers of values, in float32."""
    if kind == "nf4":
        return _look_up(_unpack(values, axis))
    return jax.lax.bitcast_convert_type(values, jnp.dtype(_NUMBERS[kind])).astype(jnp.float32)


def _nearest_codes(numbers: jax.Array) -> jax.Array:
    """The codes of NF4 that are nearest, as uint8; the lower one of two."""
    codes = jnp.zeros(numbers.shape, jnp.uint8)
    for low, high in pairwise(NF4):
        codes += (numbers > (low + high) / 2).astype(jnp.uint8)
    return codes


def _look_up(codes: jax.Array) -> jax.Array:
    """The values of codes of NF4."""
    # A gather of a small constant is fused. A tree of selections would be too, but XLA may move the
    # broadcasts of its 16 constants out of the loop over the layers: 16 times a kernel in float32.
    return jnp.array(NF4, jnp.float32).at[codes].get(mode="promise_in_bounds")


def _pack(codes: jax.Array, axis: int) -> jax.Array:
    pairs = _split(codes, axis, 2)
    even, odd = (jax.lax.index_in_dim(pairs, place, pairs.ndim + axis, False) for place in (0, 1))
    return even | (odd << 4)


def _unpack(values: jax.Array, axis: int) -> jax.Array:
    """The two codes of each value, side by side."""
    # Shifted by 0 and 4 along a new axis: unlike a concatenation, this is elementwise.
    shape = [1] * (values.ndim + 1)
    shape[axis] = 2
    shifts = jnp.array([0, 4], jnp.uint8).reshape(shape)
    codes = (jnp.expand_dims(values, axis) >> shifts) & 15
    place = values.ndim + axis
    return codes.reshape(*values.shape[:place], -1, *values.shape[place + 1 :])
