"""Rows of the embedding, looked up without gathering it on any device of a mesh."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.parallel.rules import BATCH_AXES


def look_up(embedding: jax.Array, tokens: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`[B, T, D]` of a table `[V, D]` and ids `[B, T]`.

    On a mesh, a device has a part of each row (over `fsdp`) of a part of the vocabulary (over
    `tensor`). It looks up its parts for the tokens of all devices along `fsdp`, which then exchange
    them for whole rows of their own tokens. What moves is as large as the result, where it would be
    the whole table otherwise; and the gradient of the table is never whole on a device.
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
    """Whether each device has an equal part; the row that parameters are made with has none."""
    sizes = mesh.shape
    parts = (sizes["tensor"], sizes["fsdp"], sizes["data"] * sizes["fsdp"])
    return not any(
        size % part for size, part in zip((*embedding.shape, len(tokens)), parts, strict=True)
    )


def _exchange(part: jax.Array, tokens: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`[b, T, D]` for the tokens `[b, T]` of a device that has `part[V / tensor, D / fsdp]`."""
    tokens = jax.lax.all_gather(tokens, "fsdp", tiled=True)
    local = tokens - jax.lax.axis_index("tensor") * part.shape[0]
    is_here = (local >= 0) & (local < part.shape[0])
    found = jnp.take(part, jnp.where(is_here, local, 0), axis=0).astype(dtype)
    found = jax.lax.psum(jnp.where(is_here[..., None], found, 0), "tensor")
    return jax.lax.all_to_all(found, "fsdp", split_axis=0, concat_axis=2, tiled=True)
