"""End of the input pipeline: host batches become sharded device arrays.

The transfer is asynchronous, so the loop can make the next batch while a step runs.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.parallel import rules


def put_batch(batch: dict[str, Any], mesh: Mesh, rows: int | None = None) -> dict[str, Any]:
    """Transfers a batch to the mesh: `[A, rows, T]` arrays split by rows, all others replicated.

    In a multi-process run every process passes the same arrays, except for the 3-D ones
    `[A, rows, T]`: of these it passes the rows of its own devices (`mesh.local_rows`), or all rows.

    Args:
      batch: pytree of host arrays.
      mesh: the devices of one or several processes.
      rows: rows of a micro-batch over all processes; None: the arrays already have all rows.

    Returns:
      the batch as global `jax.Array`s.
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
    """Shardings of a batch: `[A, rows, T]` arrays over data x fsdp by rows, all else replicated.

    An array is recognised by having three axes; no other array of a batch on this path has three.
    """
    rows, whole = rules.rows_sharding(mesh, axis=1), rules.replicated(mesh)
    return jax.tree.map(lambda array: rows if array.ndim == 3 else whole, batch)
