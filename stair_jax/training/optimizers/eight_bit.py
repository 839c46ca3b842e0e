"""A moment in 8 bits: codes in blocks along the last axis, with a float32 scale for each block.

As in "8-bit Optimizers via Block-wise Quantization" (arXiv 2110.02861), with other codes. Adam
divides by the second moment, element by element, so that its small values need to be as precise as
large ones, and none may become zero: its codes are steps of equal ratio over twelve decades, and a
zero of their own. They are rounded at random: one step changes a moment by 1 - b2 of itself or
less, far below the ratio of two codes, so that rounded to the nearest it would never shrink. The
first moment has signed fourth powers, rounded to the nearest.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.training.optimizers.moments import Axis, Kept, Shape
from stair_jax.training.optimizers.random_bits import WHOLE, Rows, random_bits

_LARGEST_BLOCK, _SMALLEST_BLOCK = 256, 8
_PARTS = 8  # into which the blocks of a row should be divisible, for meshes
_STEP = math.log(1e12) / 254  # between the codes 1 to 255 of the second moment
_POWER, _STEPS = 4, 127  # of the first moment


def block_size(size: int) -> int:
    """Elements of a block along an axis of so many; the same whatever the mesh.

    The largest divisor up to 256; one that gives a multiple of 8 blocks comes first, so that the
    parts of an axis that a mesh splits have whole blocks.
    """
    blocks = [each for each in range(1, _LARGEST_BLOCK + 1) if size % each == 0]
    splitting = [each for each in blocks if size // each % _PARTS == 0 and each >= 64]
    return max(splitting or blocks)


def fits(shape: Shape) -> bool:
    """Whether a moment of one layer is a kernel with blocks that are worth their scales."""
    return len(shape) > 1 and block_size(shape[-1]) >= _SMALLEST_BLOCK


@dataclass(frozen=True)
class EightBit:
    """{"codes" [*shape], "scales" float32 [*shape[:-1], blocks]}.

    Attributes:
      signed: the first moment, with codes int8; else the second, with uint8.
    """

    signed: bool

    def shapes(self, shape: Shape) -> Kept:
        """See the class."""
        blocks = (*shape[:-1], shape[-1] // block_size(shape[-1]))
        return {
            "codes": jax.ShapeDtypeStruct(shape, jnp.int8 if self.signed else jnp.uint8),
            "scales": jax.ShapeDtypeStruct(blocks, jnp.float32),
        }

    def specs(self, axes: tuple[Axis, ...]) -> Kept:
        """Those of the parameter; scales are whole along an axis that splits blocks."""
        before, last = [axis.mesh_axes for axis in axes[:-1]], axes[-1]
        is_split = last.size // block_size(last.size) % last.parts == 0
        return {
            "codes": PartitionSpec(*before, last.mesh_axes),
            "scales": PartitionSpec(*before, last.mesh_axes if is_split else None),
        }

    def average(
        self, kept: Kept, values: jax.Array, decay: float, key: jax.Array, rows: Rows = WHOLE
    ) -> tuple[Kept, jax.Array]:
        """See `Store`."""
        average = decay * self.decode(kept) + (1 - decay) * values
        return self.encode(average, key, rows), average

    def encode(self, values: jax.Array, key: jax.Array, rows: Rows = WHOLE) -> Kept:
        """Codes and scales of float32 values; of the second moment, none below zero."""
        blocks = _in_blocks(values)
        scales = jnp.max(jnp.abs(blocks), axis=-1)
        shares = blocks / jnp.maximum(scales, jnp.finfo(jnp.float32).tiny)[..., None]
        if self.signed:
            codes = _signed_codes(shares)
        else:
            bits = random_bits(key, values.shape, rows)
            codes = _ratio_codes(shares, bits.reshape(shares.shape))
        return {"codes": codes.reshape(values.shape), "scales": scales}

    def decode(self, kept: Kept) -> jax.Array:
        """The values, float32."""
        codes = _in_blocks(kept["codes"]).astype(jnp.float32)
        if self.signed:
            shares = jnp.sign(codes) * (codes / _STEPS) ** _POWER
        else:
            shares = jnp.where(codes > 0, jnp.exp((codes - 255) * _STEP), 0.0)
        return (shares * kept["scales"][..., None]).reshape(kept["codes"].shape)


def _in_blocks(array: jax.Array) -> jax.Array:
    """[..., size] as [..., blocks, block]."""
    size = array.shape[-1]
    return array.reshape(*array.shape[:-1], size // block_size(size), block_size(size))


def _signed_codes(shares: jax.Array) -> jax.Array:
    """int8 codes of values from -1 to 1."""
    roots = jnp.sqrt(jnp.sqrt(jnp.abs(shares)))
    return (jnp.sign(shares) * jnp.round(_STEPS * roots)).astype(jnp.int8)


def _ratio_codes(shares: jax.Array, bits: jax.Array) -> jax.Array:
    """uint8 codes of values from 0 to 1, rounded at random so that the mean is the value."""
    place = 255 + jnp.log(jnp.maximum(shares, jnp.finfo(jnp.float32).tiny)) / _STEP
    below = jnp.clip(jnp.floor(place), 1, 255)
    ratio = math.exp(_STEP)
    # Of the way from the code below to the one above it, in values and not in logarithms.
    part = (jnp.exp((place - below) * _STEP) - 1) / (ratio - 1)
    draw = (bits >> 8).astype(jnp.float32) * 2.0**-24
    codes = jnp.minimum(below + (draw < part), 255)
    return jnp.where(shares > 0, codes, 0).astype(jnp.uint8)
