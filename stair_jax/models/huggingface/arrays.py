"""Arrays whose parts are read for the devices that hold them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from stair_jax.models.huggingface.tensor_names import Index


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
