"""Arrays whose parts are read for the devices that hold them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from stair_jax.models.huggingface.tensor_names import Index

Stack = TypeVar("Stack")  # an array, or a pytree of arrays


def make_array(
    shape: tuple[int, ...], sharding: Sharding | None, block: Callable[[Index], np.ndarray]
) -> jax.Array:
    """An array whose blocks are read for the devices of this process, each block once."""
    if sharding is None:
        return jax.block_until_ready(jnp.asarray(block((slice(None),) * len(shape))))
    found: dict[tuple[tuple[int, ...], ...], np.ndarray] = {}

    def once(index: Index | None) -> np.ndarray:
        assert index is not None
        # Replicas ask for the same block, and slices are not hashable in Python 3.11.
        key = tuple(axis.indices(size) for axis, size in zip(index, shape, strict=True))
        if key not in found:
            found[key] = block(index)
        return found[key]

    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, once))


def stack_pieces(
    pieces: Iterable[tuple[int, Stack]], length: int, sharding: Sharding | None
) -> Stack:
    """Arrays with a leading axis of `length`, of pieces that come one after another.

    Pieces are written into donated arrays, so that one of them at most is there besides.

    Args:
        pieces: the index of the first row of each, and the piece: an array, or a tree of arrays.
        length: rows of all of them.
        sharding: of the result.
    """
    stack: Stack | None = None
    for start, piece in pieces:
        if stack is None:
            if all(len(part) == length for part in jax.tree.leaves(piece)):
                return piece
            stack = jax.tree.map(
                lambda part: jnp.zeros((length, *part.shape[1:]), part.dtype, device=sharding),
                piece,
            )
        stack = _updated(stack, piece, start, sharding)
        # Updates that are only queued would keep their pieces alive.
        jax.block_until_ready(stack)
    assert stack is not None, "there are no pieces"
    return stack


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _updated(stack: Stack, piece: Stack, start: jax.Array, sharding: Sharding | None) -> Stack:
    def update(stack: jax.Array, piece: jax.Array) -> jax.Array:
        stack = jax.lax.dynamic_update_slice_in_dim(stack, piece, start, axis=0)
        return stack if sharding is None else jax.lax.with_sharding_constraint(stack, sharding)

    return jax.tree.map(update, stack, piece)
