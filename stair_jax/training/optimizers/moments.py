"""How a moment of Adam is kept between steps: as it is, in 8 bits, or as means over its axes.

All here is of one layer: of a parameter that is stacked over layers, what is kept is stacked too.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.training.optimizers.random_bits import WHOLE, Rows

Kept = Any  # an array, or a dict of arrays
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of a parameter.

    Attributes:
      size: of the whole axis.
      mesh_axes: that split it, as in a PartitionSpec.
      parts: into how many they do.
    """

    size: int
    mesh_axes: Any = None
    parts: int = 1


class Store(Protocol):
    """A way to keep a moment. What is kept is all zeros at first."""

    def shapes(self, shape: Shape) -> Kept:
        """`jax.ShapeDtypeStruct`s of what is kept of a moment of this shape."""

    def specs(self, axes: tuple[Axis, ...]) -> Kept:
        """PartitionSpecs of what is kept, of a parameter with these axes."""

    def average(
        self, kept: Kept, values: jax.Array, decay: float, key: jax.Array, rows: Rows = WHOLE
    ) -> tuple[Kept, jax.Array]:
        """Moving average, decay * before + (1 - decay) * values: (what is kept of it, float32).

        Args:
          kept: of the average before.
          values: float32.
          decay: of the average before.
          key: of what is drawn at random (`random_bits.py`).
          rows: of the whole array that these values are.
        """


@dataclass(frozen=True)
class Plain:
    """A moment as it is, in a floating dtype."""

    dtype: str

    def shapes(self, shape: Shape) -> Kept:
        """One array."""
        return jax.ShapeDtypeStruct(shape, jnp.dtype(self.dtype))

    def specs(self, axes: tuple[Axis, ...]) -> Kept:
        """That of the parameter."""
        return PartitionSpec(*(axis.mesh_axes for axis in axes))

    def average(
        self, kept: Kept, values: jax.Array, decay: float, key: jax.Array, rows: Rows = WHOLE
    ) -> tuple[Kept, jax.Array]:
        """See `Store`."""
        average = decay * kept.astype(jnp.float32) + (1 - decay) * values
        return average.astype(kept.dtype), average
