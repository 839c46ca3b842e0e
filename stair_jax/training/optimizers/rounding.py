"""From float32 to bfloat16 without losing small updates.

bfloat16 has 8 significant bits: an update below 1/512 of a parameter is lost by rounding to the
nearest. Rounding at random keeps it in the mean; a second array keeps what rounding takes away.
Both are in "Revisiting BFloat16 Training", arXiv 2010.06192, sections 3 and 4.
"""

import jax
import jax.numpy as jnp

_DROPPED = 0xFFFF  # the bits of a float32 that a bfloat16 does not have


def stochastically_rounded(values: jax.Array, bits: jax.Array) -> jax.Array:
    """The values in bfloat16, up or down at random so that the mean is the value itself.

    Args:
      values: float32.
      bits: random, uint32 of the same shape; 16 of them are used.
    """
    raw = jax.lax.bitcast_convert_type(values, jnp.uint32)
    rounded = (raw + (bits >> 16)) & ~jnp.uint32(_DROPPED)
    # Bits added to a NaN could carry into its sign.
    up_or_down = jax.lax.bitcast_convert_type(rounded, jnp.float32).astype(jnp.bfloat16)
    return jnp.where(jnp.isfinite(values), up_or_down, values.astype(jnp.bfloat16))


def split_sum(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the values in bfloat16, what rounding took away, in bfloat16): together 16 bits of each.

    Kahan's compensated sum: the next update is added to both.

    Args:
      values: float32.
    """
    # A conversion to bfloat16 and back may be left out by the compiler; this may not.
    kept = jax.lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)
    return kept.astype(jnp.bfloat16), (values - kept).astype(jnp.bfloat16)
