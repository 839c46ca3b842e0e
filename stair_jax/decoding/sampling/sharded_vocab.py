"""Sampling over a sharded vocabulary: logits split over the tensor axis, or whole on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from stair_jax.parallel.rules import BATCH_AXES


@dataclass(frozen=True)
class ShardedVocab:
    """Collectives over a vocabulary of which each device of the tensor axis has an equal shard.

    Without a tensor axis every method is local, so that one code serves both cases.

    Attributes:
        axis: the mesh axis that the vocabulary is split over; None if each device has all of it.
        axes: all axes of the mesh, if `axis` is given.
    """

    axis: str | None = None
    axes: tuple[str, ...] = ()

    def sum(self, values: jax.Array) -> jax.Array:
        """Sum over the devices of the axis, elementwise."""
        return values if self.axis is None else lax.psum(values, self.axis)

    def max(self, values: jax.Array) -> jax.Array:
        """Maximum over the devices of the axis, elementwise."""
        return values if self.axis is None else lax.pmax(values, self.axis)

    def min(self, values: jax.Array) -> jax.Array:
        """Minimum over the devices of the axis, elementwise."""
        return values if self.axis is None else lax.pmin(values, self.axis)

    def gather(self, values: jax.Array) -> jax.Array:
        """Concatenates [B, C] of each device to [B, devices * C], in vocabulary order."""
        if self.axis is None:
            return values
        return lax.all_gather(values, self.axis, axis=1, tiled=True)

    def everywhere(self, value: jax.Array) -> jax.Array:
        """Maximum over the whole mesh, for values that all devices have to agree on.

        Used for the conditions of branches and loops that contain collectives: devices that took
        different branches would wait for each other for ever.
        """
        return value if self.axis is None else lax.pmax(value, self.axes)

    @property
    def index(self) -> jax.Array | int:
        """Index of this device along the axis."""
        return 0 if self.axis is None else lax.axis_index(self.axis)

    def vocab_size(self, size: int) -> int:
        """Size of the whole vocabulary, if each device has `size` tokens."""
        return size if self.axis is None else size * lax.axis_size(self.axis)

    def ids(self, size: int) -> jax.Array:
        """[1, size] int32, token ids of this device's shard."""
        return (self.index * size + jnp.arange(size, dtype=jnp.int32))[None]

    def take(self, values: jax.Array, ids: jax.Array) -> jax.Array:
        """Looks up elements of sharded rows by global token id.

        Args:
            values: [B, V / devices], this device's shard.
            ids: [B, W] int32, token ids.

        Returns:
            [B, W], the same on all devices of the axis.
        """
        size = values.shape[-1]
        local = ids - self.index * size
        inside = (local >= 0) & (local < size)
        found = jnp.take_along_axis(values, jnp.clip(local, 0, size - 1), axis=-1)
        # Each id is found on exactly one device: the others add zeros.
        return self.sum(jnp.where(inside, found, 0))


def over_rows(function: Callable[..., Any], logits: jax.Array, *rows: Any) -> Any:
    """Runs `function(vocab, logits, *rows)` on the mesh in use, each device on its own part.

    Args:
        function: works on B rows; the first axis of everything that it returns is B.
        logits: [B, V], split over data x fsdp and over tensor.
        rows: trees of arrays [B, ...], split over data x fsdp.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return function(ShardedVocab(), logits, *rows)
    vocab = ShardedVocab("tensor", mesh.axis_names) if mesh.shape["tensor"] > 1 else ShardedVocab()
    specs = (PartitionSpec(BATCH_AXES, "tensor"), *(PartitionSpec(BATCH_AXES),) * len(rows))

    def part(*arguments: Any) -> Any:
        return function(vocab, *arguments)

    return jax.shard_map(
        part, in_specs=specs, out_specs=PartitionSpec(BATCH_AXES), check_vma=False
    )(logits, *rows)
