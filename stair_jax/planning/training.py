"""Programs of training: a step, and a pass without gradients."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.data.packing import Example
from stair_jax.models import flops
from stair_jax.models.config import ModelConfig
from stair_jax.parallel import rules
from stair_jax.planning import cost
from stair_jax.planning.abstract import abstract
from stair_jax.planning.program import Program
from stair_jax.training.batches import Batch
from stair_jax.training.feeding import batch_shardings
from stair_jax.training.optimizer import Optimizer
from stair_jax.training.step import (
    Objective,
    Params,
    abstract_state,
    make_train_step,
)

ANY_EXAMPLE = Example((0,), (1,))  # stands for the data: shapes do not depend on them


def train_step(
    what: str,
    config: ModelConfig,
    objective: Objective,
    optimizer: Optimizer,
    params: Params,
    axes: Params,
    batch: Batch,
    mesh: Mesh,
    head: bool = True,
) -> Program:
    """A training step whose micro-batches are all in use, each row filled by one sequence.

    Args:
      what: names the program.
      config: of the model.
      objective: of the step.
      optimizer: of the step.
      params: shapes of what is trained.
      axes: PartitionSpecs of logical axis names, a tree like `params`.
      batch: any batch of the run, for its shapes.
      mesh: the devices.
      head: whether the loss needs logits.
    """
    state = abstract_state(params, axes, optimizer.tx, mesh)
    scalar = jax.ShapeDtypeStruct((), np.float32, sharding=rules.replicated(mesh))
    passes, count, length = batch.arrays["micro"]["tokens"].shape
    rows = flops.Rows(passes * count, length, logits=length if head else 0)
    return Program(
        f"{what}: {passes} x {count} x {length} tokens",
        make_train_step(objective, optimizer.tx, state),
        (state, abstract_batch(batch, mesh), scalar),
        mesh,
        flops.training_flops(config, rows),
        cost.training_traffic(config, state, passes, head),
    )


def forward_pass(
    what: str,
    config: ModelConfig,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    params: Params,
    batch: Batch,
    mesh: Mesh,
    head: bool = True,
) -> Program:
    """One micro-batch of a pass without gradients, each row filled by one sequence.

    Args:
      what: names the program.
      config: of the model.
      function: called with `arguments`, the micro-batches of a batch and the number of one.
      arguments: its first ones.
      params: shapes of the model's parameters, among `arguments`.
      batch: any batch of the pass, for its shapes.
      mesh: the devices.
      head: whether the pass needs logits.
    """
    micros = abstract_batch(batch, mesh)["micro"]
    _, count, length = micros["tokens"].shape
    rows = flops.Rows(count, length, logits=length if head else 0)
    return Program(
        f"{what}: {count} x {length} tokens",
        function,
        (*arguments, micros, 0),
        mesh,
        flops.forward_flops(config, rows),
        cost.weights_traffic(config, params, head),
    )


def abstract_batch(batch: Batch, mesh: Mesh) -> dict[str, Any]:
    """Shapes of the arrays of a batch as `put_batch` lays them out."""
    return jax.tree.map(abstract, batch.arrays, batch_shardings(batch.arrays, mesh))
