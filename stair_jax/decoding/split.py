"""Rows of logits whose vocabulary is split over the devices of a mesh axis, or lies on one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from stair_jax.parallel.rules import BATCH_AXES


@dataclass(frozen=True)
class Split:
    """Reductions over a whole vocabulary, of which each device has the same number of tokens.

    Attributes:
        axis: of the mesh; None where a device has the whole.
        axes: all axes of the mesh, when `axis` is one of them.
    """

    axis: str | None = None
    axes: tuple[str, ...] = ()

    def sum(self, values: jax.Array) -> jax.Array:
        """Sums over the devices."""
        return values if self.axis is None else lax.psum(values, self.axis)

    def max(self, values: jax.Array) -> jax.Array:
        """The largest of the devices."""
        return values if self.axis is None else lax.pmax(values, self.axis)

    def min(self, values: jax.Array) -> jax.Array:
        """The smallest of the devices."""
        return values if self.axis is None else lax.pmin(values, self.axis)

    def gather(self, values: jax.Array) -> jax.Array:
        """[B, devices * C] out of [B, C] of each device, in the order of their tokens."""
        if self.axis is None:
            return values
        return lax.all_gather(values, self.axis, axis=1, tiled=True)

    def everywhere(self, value: jax.Array) -> jax.Array:
        """The largest of the whole mesh, for what all devices must decide alike.

        Devices of a branch that has collectives would otherwise wait for those of another one.
        """
        return value if self.axis is None else lax.pmax(value, self.axes)

    @property
    def index(self) -> jax.Array | int:
        """The number of this device along the axis."""
        return 0 if self.axis is None else lax.axis_index(self.axis)

    def vocab_size(self, size: int) -> int:
        """Tokens of all devices, of which each has `size`."""
        return size if self.axis is None else size * lax.axis_size(self.axis)

    def ids(self, size: int) -> jax.Array:
        """[1, size] int32, the tokens of this device."""
        return (self.index * size + jnp.arange(size, dtype=jnp.int32))[None]

    def take(self, values: jax.Array, ids: jax.Array) -> jax.Array:
        """The elements [B, W] of rows [B, V], of which a device has a part, at ids [B, W]."""
        size = values.shape[-1]
        local = ids - self.index * size
        inside = (local >= 0) & (local < size)
        found = jnp.take_along_axis(values, jnp.clip(local, 0, size - 1), axis=-1)
        return self.sum(jnp.where(inside, found, 0))


def over_rows(function: Callable[..., Any], logits: jax.Array, *rows: Any) -> Any:
    """`function(split, logits, *rows)` on the mesh in use, each device with its part.

    Args:
        function: of rows; whatever it returns has them as first axis.
        logits: [B, V], split over the rows' axes and over `tensor`.
        rows: trees of arrays [B, ...], split over the rows' axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return function(Split(), logits, *rows)
    split = Split("tensor", mesh.axis_names) if mesh.shape["tensor"] > 1 else Split()
    specs = (PartitionSpec(BATCH_AXES, "tensor"), *(PartitionSpec(BATCH_AXES),) * len(rows))

    def part(*arguments: Any) -> Any:
        return function(split, *arguments)

    return jax.shard_map(
        part, in_specs=specs, out_specs=PartitionSpec(BATCH_AXES), check_vma=False
    )(logits, *rows)
