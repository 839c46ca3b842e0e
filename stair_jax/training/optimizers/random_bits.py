"""Random bits of array elements from counters: cheap, without a state, the same on any mesh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9  # 2^32 by the golden ratio: far from any multiple of a power of two


class Rows(NamedTuple):
    """Which rows of a whole array a piece of it has: `first`, `first + stride`, ...

    Attributes:
      first: the first of them; an int, or a scalar of integers.
      stride: from one to the next.
    """

    first: int | jax.Array = 0
    stride: int = 1


WHOLE = Rows()


def key_of(*numbers: int | jax.Array) -> jax.Array:
    """A key, uint32 scalar, of whole numbers; other numbers or another order give another one."""
    key = jnp.uint32(_GOLDEN)
    for number in numbers:
        key = _mixed(key + jnp.uint32(number)) + jnp.uint32(_GOLDEN)
    return key


def random_bits(key: jax.Array, shape: tuple[int, ...], rows: Rows = WHOLE) -> jax.Array:
    """Bits uint32 [*shape], each from the key and the place of its element alone.

    Made where they are used: elementwise, of the element's index, so that a device makes the bits
    of its own part of a sharded array. Places repeat beyond 2^32 elements. A piece has the bits
    that its rows have in the whole array.
    """
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        if axis == 0 and rows is not WHOLE:
            along = jnp.uint32(rows.first) + jnp.uint32(rows.stride) * along
        place = place * jnp.uint32(size) + along
    return _mixed(_mixed(place ^ key) + key)


def _mixed(bits: jax.Array) -> jax.Array:
    """MurmurHash3's finaliser (A. Appleby): each bit of the input turns half of the output's."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
