"""Embedding lookup in a sharded table, without gathering the table on any device."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.parallel.rules import BATCH_AXES


def look_up(embedding: jax.Array, tokens: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Looks up rows of a table.

    On a mesh, the rows of the table are split over `tensor` and their columns over `fsdp`. A device
    looks up its part of the rows for the tokens of all devices along `fsdp`, which then exchange
    the parts (all-to-all). The communication is as large as the result, instead of the whole table,
    and the gradient of the table is never whole on a device either.

    Args:
        embedding: [V, D].
        tokens: [B, T] int32 token ids.
        dtype: of the result.

    Returns:
        [B, T, D].
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or not _divides(mesh, embedding, tokens):
        return jnp.take(embedding, tokens, axis=0).astype(dtype)
    rows: Any = PartitionSpec(BATCH_AXES)
    return jax.shard_map(
        partial(_exchange, dtype=dtype),
        in_specs=(PartitionSpec("tensor", "fsdp"), rows),
        out_specs=rows,
    )(embedding, tokens)


def _divides(mesh: Any, embedding: jax.Array, tokens: jax.Array) -> bool:
    """Whether the mesh divides table and batch evenly; it does not for the one row of `init`."""
    sizes = mesh.shape
    parts = (sizes["tensor"], sizes["fsdp"], sizes["data"] * sizes["fsdp"])
    return not any(
        size % part for size, part in zip((*embedding.shape, len(tokens)), parts, strict=True)
    )


def _exchange(part: jax.Array, tokens: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Looks up the tokens of one device.

    Args:
        part: [V / tensor, D / fsdp], the device's part of the table.
        tokens: [b, T] int32, the device's own tokens.
        dtype: of the result.

    Returns:
        [b, T, D].
    """
    tokens = jax.lax.all_gather(tokens, "fsdp", tiled=True)
    local = tokens - jax.lax.axis_index("tensor") * part.shape[0]
    is_here = (local >= 0) & (local < part.shape[0])
    found = jnp.take(part, jnp.where(is_here, local, 0), axis=0).astype(dtype)
    # Each row is found on one device of `tensor`; the others add zeros.
    found = jax.lax.psum(jnp.where(is_here[..., None], found, 0), "tensor")
    return jax.lax.all_to_all(found, "fsdp", split_axis=0, concat_axis=2, tiled=True)
