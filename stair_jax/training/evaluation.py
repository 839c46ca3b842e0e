"""The loss of held-out rows: the objective of training, without gradients."""

import functools
from collections.abc import Hashable, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.parallel.mesh import use_mesh
from stair_jax.stopping import heed
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.batches import Batch
from stair_jax.training.step import Micro, Objective, Params, Sums, micro_at

PREFIX = "eval/"


@functools.partial(jax.jit, static_argnums=0)
def micro_sums(objective: Objective, params: Params, micros: Micro, index: int) -> Sums:
    """Sums of an objective over one micro-batch.

    Args:
      objective: hashable, see `objectives.py`.
      params: what is trained.
      micros: the arrays `[A, ...]` of a batch.
      index: of one micro-batch, traced.
    """
    sums = objective(params, micro_at(micros, index))
    # On all devices, so that every process can read them.
    return jax.tree.map(lambda value: nn.with_logical_constraint(value, ()), sums)


def evaluate(
    objective: Objective, params: Params, batches: Sequence[Batch], mesh: Mesh
) -> dict[str, float]:
    """Loss and metrics of an objective over all of some batches; all processes call it together.

    Args:
      objective: of training.
      params: what is trained; only read.
      batches: of the held-out rows.
      mesh: the devices.

    Returns:
      "eval/loss" and "eval/NAME" of each metric of the objective: sums over all micro-batches,
      divided by the sum of their weights, as a training step has them of its batch.
    """
    assert isinstance(objective, Hashable)
    total = 0.0
    sums: dict[str, float] = {}
    with use_mesh(mesh):
        for batch in batches:
            micros = put_batch(batch.arrays, mesh, batch.num_rows)["micro"]
            found = [micro_sums(objective, params, micros, i) for i in range(len(batch.members))]
            for each in jax.device_get(found):
                heed()
                total += float(each.weight)
                for name, value in {"loss": each.loss, **each.metrics}.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
    # Not by 0, where nothing counts: as in a training step.
    total = max(total, float(np.finfo(np.float32).tiny))
    return {PREFIX + name: value / total for name, value in sums.items()}
