"""From the arrays of a process to arrays on the mesh."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.parallel import rules


def put_batch(batch: dict[str, Any], mesh: Mesh, rows: int | None = None) -> dict[str, Any]:
    """A batch on the mesh.

    In a run of several processes each gives the same arrays, but for those of three axes
    `[A, rows, T]`: of these it gives the rows of its own devices (`mesh.local_rows`), or all.

    Args:
      batch: a tree of arrays.
      mesh: the devices, of one process or of several.
      rows: of a micro-batch, in all processes together; None: the arrays have all of them.
    """
    shardings = batch_shardings(batch, mesh)
    if not mesh.is_multi_process:
        return jax.device_put(batch, shardings)

    def put(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
        array = np.asarray(array)
        shape = array.shape
        if array.ndim == 3 and rows is not None:
            shape = (shape[0], rows, shape[2])
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return jax.tree.map(put, batch, shardings)


def batch_shardings(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """How a batch lies on the mesh: `[A, rows, T]` arrays split by rows, all else replicated."""
    rows, whole = rules.rows_sharding(mesh, axis=1), rules.replicated(mesh)
    return jax.tree.map(lambda array: rows if array.ndim == 3 else whole, batch)
