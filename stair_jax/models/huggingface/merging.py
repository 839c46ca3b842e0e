"""Adapters that are added to their kernels while these are read, a few layers at a time."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Sharding


@dataclass(frozen=True)
class Merging:
    """The adapter of a kernel in all layers.

    Attributes:
        a: [L, *in, r].
        b: [L, r, *out].
        scale: of their product.
        dtype: of the sums.
    """

    a: jax.Array
    b: jax.Array
    scale: float
    dtype: str

    def into(self, kernels: jax.Array, start: int, sharding: Sharding | None) -> jax.Array:
        """Float32 kernels [n, *in, *out] of the layers from `start` on, with their adapters.

        Summed in float32, and rounded once.
        """
        stop = start + len(kernels)
        a, b = self.a[start:stop], self.b[start:stop]
        return jax.block_until_ready(_merged(kernels, a, b, self.scale, self.dtype, sharding))


@partial(jax.jit, static_argnums=(4, 5), donate_argnums=0)
def _merged(
    kernels: jax.Array,
    a: jax.Array,
    b: jax.Array,
    scale: float,
    dtype: str,
    sharding: Sharding | None,
) -> jax.Array:
    product = jax.vmap(partial(jnp.tensordot, axes=1, precision=jax.lax.Precision.HIGHEST))(a, b)
    merged = (kernels + scale * product).astype(dtype)
    return merged if sharding is None else jax.lax.with_sharding_constraint(merged, sharding)
