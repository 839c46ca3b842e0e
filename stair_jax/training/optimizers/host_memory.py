"""Arrays in pinned host memory, which a device reads and writes through its own copies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stair_jax.errors import UserError

PINNED = "pinned_host"  # the name of a memory, as in shardings


def check(device: jax.Device, in_eight_bits: bool) -> None:
    """Raises a UserError unless programs of the device can hold moments in host memory.

    Args:
      device: of those that train.
      in_eight_bits: whether there are moments in 8 bits among them.
    """
    if device.platform == "tpu" and in_eight_bits:
        # Its compiler lays out 8-bit arrays in one way on the device and in another on the host.
        raise UserError(
            "offload does not go with moments in int8 on TPUs: set one of mu_dtype and "
            "second_moment, or offload, to another value"
        )
    kinds = {memory.kind for memory in device.addressable_memories()}
    if kinds and PINNED not in kinds:  # of a GPU that is only described, none are known
        raise UserError(
            f"offload needs host memory that is pinned, which {device.platform} devices like "
            f"{device.device_kind} do not have here: set it to False"
        )


def is_pinned(array: Any) -> bool:
    """Whether an array, or a shape with a sharding, is in host memory."""
    return getattr(getattr(array, "sharding", None), "memory_kind", None) == PINNED


def came_from_host(tree: Any) -> bool:
    """Whether arrays of a traced function are in host memory."""
    spaces = {jax.typeof(leaf).memory_space for leaf in jax.tree.leaves(tree)}
    return jax.memory.Space.Host in spaces


def to_device(tree: Any) -> Any:
    """Copies of arrays of a traced function in the memory of the device."""
    return jax.device_put(tree, jax.memory.Space.Device)


def to_host(tree: Any) -> Any:
    """Copies of arrays of a traced function in host memory."""
    return jax.device_put(tree, jax.memory.Space.Host)


def zeros(shapes: Any) -> Any:
    """Zeros of shapes with shardings, made in their memory and nowhere else."""
    return jax.tree.map(_zeros, shapes)


def _zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    if not is_pinned(shape):
        return jnp.zeros(shape.shape, shape.dtype, device=shape.sharding)
    part = np.zeros(shape.sharding.shard_shape(shape.shape), shape.dtype)
    return jax.make_array_from_callback(shape.shape, shape.sharding, lambda _: part)
