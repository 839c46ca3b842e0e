"""A model with its adapters merged, in one tree: to compare with, where all fits the memory.

Loads and exports merge kernel by kernel while they read and write (`models/huggingface/`).
"""

from functools import partial

import jax
import jax.numpy as jnp

from stair_jax.models.lora import ROWS, TABLES, A, B, Lora, split
from stair_jax.models.transformer import Params


def merge(lora: Lora, params: Params) -> Params:
    """The parameters of a language model with each adapter added to its kernel.

    Rows of tokens are put into the tables. One kernel at a time; its old array is deleted.

    Args:
        lora: the adapters.
        params: as of `init_params`, with adapters; kernels that are plain arrays.

    Returns:
        the same without adapters.
    """
    frozen, trained = split(params)
    layers = dict(frozen["layers"])
    for name in lora.targets:
        a, b = (trained["layers"][name + half] for half in (A, B))
        layers[name] = jax.block_until_ready(_merged(lora.scale, layers[name], a, b))
    tables = {
        name: _put(lora.token_ids, frozen[name], trained[name + ROWS])
        for name in TABLES
        if name + ROWS in trained
    }
    return {**frozen, **tables, "layers": layers}


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _put(ids: tuple[int, ...], table: jax.Array, rows: jax.Array) -> jax.Array:
    """The table [V, D] with other rows [K, D] for some tokens."""
    return table.at[jnp.asarray(ids)].set(rows.astype(table.dtype))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merged(scale: float, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The kernel [L, *in, *out] with its adapter, summed in float32 and rounded once."""

    def of_layer(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        wide = jnp.tensordot(
            a.astype(jnp.float32), b.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST
        )
        return (kernel.astype(jnp.float32) + scale * wide).astype(kernel.dtype)

    # Layer by layer, so that the float32 sums of all are never there at once.
    return jax.lax.map(lambda each: of_layer(*each), (kernel, a, b))
