"""Forward passes without gradients over packed batches: reference log-probs and PRM scores."""

import functools
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.parallel.mesh import use_mesh
from stair_jax.parallel.processes import collectives
from stair_jax.stopping import heed
from stair_jax.storage import atomic_file
from stair_jax.training import objectives
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batches
from stair_jax.training.step import Micro, Params, micro_at


@functools.partial(jax.jit, static_argnums=(0, 1))
def sequence_logps(
    config: ModelConfig, num_chunks: int, params: Params, micros: Micro, index: int
) -> jax.Array:
    """Log-probabilities of each sequence, summed over its weighted tokens: `[S, G]` float32.

    Args:
      config: of the model.
      num_chunks: see `token_logps`.
      params: of the model.
      micros: the arrays `[A, ...]` of a batch.
      index: of one micro-batch. Traced, not static: all micro-batches share a compiled program.
    """
    micro = micro_at(micros, index)
    logps = objectives.micro_logps(config, num_chunks, params, micro)
    return whole(objectives.sequence_sums(logps * micro["weights"], micro))


@functools.partial(jax.jit, static_argnums=0)
def sequence_scores(config: ModelConfig, params: Params, micros: Micro, index: int) -> jax.Array:
    """Scores of each sequence by a process reward model: `[S, G]` float32; see `sequence_logps`."""
    return whole(objectives.sequence_scores(config, params, micro_at(micros, index)))


def whole(values: jax.Array) -> jax.Array:
    """Replicates values over the mesh in use, so that every process can read all of them."""
    return nn.with_logical_constraint(values, (None,) * values.ndim)


def for_each_group(
    function: Callable[[Micro, int], jax.Array], batches: Batches, mesh: Mesh
) -> np.ndarray:
    """Applies `function` to every micro-batch: values `[N, G]` of the N groups, in their order.

    Args:
      function: `(micros, index) -> [S, G]` of micro-batch `index` of a batch.
      batches: of the N groups.
      mesh: the devices.
    """
    found: dict[int, np.ndarray] = {}
    with use_mesh(mesh):
        for batch in batches:
            micros = put_batch(batch.arrays, mesh, batch.num_rows)["micro"]
            for index, members in enumerate(batch.members):
                heed()
                values = np.asarray(function(micros, index))  # waits for the device
                found |= zip(members, values, strict=False)  # the other rows of S are padding
    # Packing reorders the groups within a batch; their indices in the run restore the order.
    return np.stack([found[number] for number in range(len(found))])


def cached(path: Path, fingerprint: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array stored at `path` (`.npz`) if it has this fingerprint; else computes and stores it.

    Args:
      path: of the cache file.
      fingerprint: of everything that the array depends on.
      compute: makes the array; called by all processes or by none, as it may run collectives.

    Raises:
      UserError: process 0 can read the file and this process cannot.
    """
    stored = _stored(path, fingerprint)
    if collectives.broadcast(stored is not None):  # all read it, or all compute it
        if stored is None:
            raise UserError(
                f"process 0 reads {path}, process {collectives.process_index()} cannot: "
                "--workdir must be a folder that all processes share"
            )
        return stored
    values = compute()
    if collectives.is_main():
        with atomic_file(path) as file:
            np.savez(file, values=values, fingerprint=np.array(fingerprint))
    return values


def _stored(path: Path, fingerprint: str) -> np.ndarray | None:
    """The array in the file; None if it is missing, damaged or has another fingerprint."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["values"] if str(file["fingerprint"]) == fingerprint else None
    except (ValueError, OSError, KeyError, BadZipFile):
        return None
