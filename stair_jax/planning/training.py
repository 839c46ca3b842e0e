"""Training programs of a plan: the training step, and forward passes without gradients."""

import dataclasses
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
from stair_jax.planning.gpu_compiler import is_described
from stair_jax.planning.program import Program
from stair_jax.training.batch_sharding import batch_shardings
from stair_jax.training.batches import Batch
from stair_jax.training.optimizer import Optimizer, Transformation
from stair_jax.training.optimizers.frugal import FrugalAdam
from stair_jax.training.step import (
    Objective,
    Params,
    abstract_state,
    in_host_memory,
    make_train_step,
)

ANY_EXAMPLE = Example((0,), (1,))  # stands in for the data, on which no shape depends


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
    frozen: Params | None = None,
) -> Program:
    """A training step. FLOPs are those of the worst case: all micro-batches in use, full rows.

    Args:
      what: name of the program.
      config: of the model.
      objective: of the step.
      optimizer: of the step.
      params: trained parameters, as shapes.
      axes: pytree like `params` of PartitionSpecs with logical axis names.
      batch: any batch of the run, for its shapes.
      mesh: the devices.
      head: whether the loss needs logits.
      frozen: parameters beside the trained ones, as shapes.
    """
    tx = _compilable(optimizer.tx, mesh)
    state = abstract_state(params, axes, tx, mesh)
    scalar = jax.ShapeDtypeStruct((), np.float32, sharding=rules.replicated(mesh))
    passes, count, length = batch.arrays["micro"]["tokens"].shape
    rows = flops.RowShape(passes * count, length, logits=length if head else 0)
    return Program(
        f"{what}: {passes} x {count} x {length} tokens",
        make_train_step(objective, tx, state),
        (state, abstract_batch(batch, mesh), scalar, frozen or {}),
        mesh,
        flops.training_flops(config, rows),
        cost.training_traffic(config, state, passes, head, frozen),
        offloaded=() if tx == optimizer.tx else in_host_memory(optimizer.tx, state),
    )


def _compilable(tx: Transformation, mesh: Mesh) -> Transformation:
    """An optimizer that can be compiled: described GPUs have no host memory, as JAX sees them."""
    if isinstance(tx, FrugalAdam) and tx.offload and is_described(mesh.devices.flat[0]):
        return dataclasses.replace(tx, offload=False)
    return tx


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
    """A forward pass over one micro-batch. FLOPs are those of full rows of one sequence each.

    Args:
      what: name of the program.
      config: of the model.
      function: jitted; called with `arguments`, the micro-batches of a batch, and an index.
      arguments: its leading arguments.
      params: the model's parameters among `arguments`, as shapes.
      batch: any batch of the pass, for its shapes.
      mesh: the devices.
      head: whether the pass computes logits.
    """
    micros = abstract_batch(batch, mesh)["micro"]
    _, count, length = micros["tokens"].shape
    rows = flops.RowShape(count, length, logits=length if head else 0)
    return Program(
        f"{what}: {count} x {length} tokens",
        function,
        (*arguments, micros, 0),
        mesh,
        flops.forward_flops(config, rows),
        cost.weights_traffic(config, params, head),
    )


def abstract_batch(batch: Batch, mesh: Mesh) -> dict[str, Any]:
    """The arrays of a batch as shapes, with the shardings of `put_batch`."""
    return jax.tree.map(abstract, batch.arrays, batch_shardings(batch.arrays, mesh))
