"""A second moment as its means over the two sides of a kernel.

Adafactor's estimate (arXiv 1804.04235, section 3): the matrix of rank one with these means of its
rows and columns. The rest of Adafactor (its schedules, clipped updates) is not used: b2 and its
bias correction are Adam's. optax's `scale_by_factored_rms` averages over the two largest axes of an
array, which may be its layers, or one axis of a side that has two (heads, head_dim).
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.training.optimizers.moments import Axis, Kept, Shape
from stair_jax.training.optimizers.random_bits import WHOLE, Rows


def fits(shape: Shape) -> bool:
    """Whether a moment of one layer has two sides."""
    return len(shape) > 1


def sides(shape: Shape) -> int:
    """How many leading axes are the rows of a kernel: where rows and columns are fewest together.

    So [embed, heads, head_dim] and [heads, head_dim, embed] are taken apart between embed and
    heads, or heads and embed.
    """
    cuts = range(1, len(shape))
    return min(cuts, key=lambda cut: math.prod(shape[:cut]) + math.prod(shape[cut:]))


class Factored:
    """{"rows": means over the columns, "columns": means over the rows}, float32."""

    def shapes(self, shape: Shape) -> Kept:
        """See the class."""
        cut = sides(shape)
        return {
            "rows": jax.ShapeDtypeStruct(shape[:cut], jnp.float32),
            "columns": jax.ShapeDtypeStruct(shape[cut:], jnp.float32),
        }

    def specs(self, axes: tuple[Axis, ...]) -> Kept:
        """Each side has the axes of the parameter that it has."""
        cut = sides(tuple(axis.size for axis in axes))
        names = [axis.mesh_axes for axis in axes]
        return {"rows": PartitionSpec(*names[:cut]), "columns": PartitionSpec(*names[cut:])}

    def average(
        self, kept: Kept, values: jax.Array, decay: float, key: jax.Array, rows: Rows = WHOLE
    ) -> tuple[Kept, jax.Array]:
        """See `Store`."""
        cut = sides(values.shape)
        first, second = tuple(range(cut)), tuple(range(cut, values.ndim))
        new = {
            "rows": decay * kept["rows"] + (1 - decay) * jnp.mean(values, axis=second),
            "columns": decay * kept["columns"] + (1 - decay) * jnp.mean(values, axis=first),
        }
        mean = jnp.maximum(jnp.mean(new["rows"]), jnp.finfo(jnp.float32).tiny)
        shares = jnp.expand_dims(new["rows"] / mean, second)
        return new, shares * jnp.expand_dims(new["columns"], first)
