"""The jitted training step, with gradient accumulation over micro-batches.

Loss sums and gradients are added over the micro-batches and divided once by the total weight. This
equals the gradient of the whole batch also when micro-batches have different numbers of tokens,
which averaging their means would not.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stair_jax.models.lora import join
from stair_jax.parallel import rules
from stair_jax.training.optimizer import Transformation
from stair_jax.training.optimizers.frugal import FrugalAdam, is_kernel

Params = Any
Micro = dict[str, jax.Array]  # arrays of one micro-batch, see batches.py


class Sums(NamedTuple):
    """Result of an objective for one micro-batch: scalar sums, not means.

    The loss of a step is the sum of `loss` over its micro-batches divided by the sum of `weight`,
    and so is each metric. `weight` must not depend on the parameters: it is not differentiated.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]


Objective = Callable[[Params, Micro], Sums]


class TrainState(NamedTuple):
    """What a training step updates."""

    params: Params
    opt_state: Any


TrainStep = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(objective: Objective, tx: Transformation, state: TrainState) -> TrainStep:
    """The jitted step `(state, batch, learning_rate[, frozen]) -> (state, metrics)`.

    `state` is donated. `frozen` holds parameters that the objective sees beside those of the state
    (`models.lora.join`) and that stay as they are.

    `batch` is {"count": int32 scalar, "micro": arrays with a leading axis A}: the first `count`
    micro-batches are run, so that the shapes do not depend on how many a batch needs (see
    `batches.py`). Metrics, float32 scalars: "loss", "grad_norm" (before clipping), "weight", and
    those of the objective.

    Args:
      objective: hashable, see `objectives.py`.
      tx: the optimizer, for a learning rate of 1. The rate is an argument of the step, so that
        stages with different schedules share one compiled step.
      state: of the same structure and shardings as the states to come; may be abstract
        (`abstract_state`). The new state and the gradient sums are sharded likewise.

    Returns:
      the step; the same jitted function for equal arguments.
    """
    shardings, treedef = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, state))
    return _train_step(objective, tx, tuple(shardings), treedef)


# Cached, so that stages with equal objective, optimizer and shardings share a compiled step: a jit
# of a new closure would compile again. Shardings and tree structure are hashable, the state is not.
@functools.lru_cache(maxsize=8)
def _train_step(
    objective: Objective,
    tx: Transformation,
    shardings: tuple[NamedSharding, ...],
    treedef: jax.tree_util.PyTreeDef,
) -> TrainStep:
    out_shardings = jax.tree.unflatten(treedef, shardings)

    def step(
        state: TrainState,
        batch: dict[str, Any],
        learning_rate: jax.Array,
        frozen: Params | None = None,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        sums, gradients = _summed(
            objective,
            frozen or {},
            state.params,
            batch,
            out_shardings.params,
            _sum_dtype(tx, batch),
        )
        # Not 0, so that a batch in which nothing counts has loss and gradients of 0, not NaN.
        weight = jnp.maximum(sums.weight, jnp.finfo(jnp.float32).tiny)
        state, norm = _updated(tx, state, gradients, weight, learning_rate)
        metrics = {
            "loss": sums.loss / weight,
            "grad_norm": norm,
            "weight": sums.weight,
            **{name: value / weight for name, value in sums.metrics.items()},
        }
        return state, metrics

    whole = NamedSharding(shardings[0].mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=(out_shardings, whole))


def init_state(params: Params, logical_axes: Params, tx: Transformation, mesh: Mesh) -> TrainState:
    """Puts parameters and zero moments on the mesh; each moment is sharded like its parameter.

    Parameters that are already on the mesh are not copied, so that the first step donates them too.

    Args:
      params: pytree of arrays.
      logical_axes: pytree like `params` of PartitionSpecs with logical axis names.
      tx: the optimizer. Its moments have its own dtypes (float32 by default), whatever the dtype
        of the parameters.
      mesh: the devices.
    """
    sharded = rules.shardings(logical_axes, mesh)
    params = jax.device_put(params, sharded)
    if isinstance(tx, FrugalAdam):
        return TrainState(params, tx.init(params, sharded, mesh))
    like = abstract_state(params, logical_axes, tx, mesh).opt_state
    out_shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    # Without out_shardings, jit would replicate the moments: zeros do not depend on the parameters.
    opt_state = jax.jit(lambda tree: tx.init(_wide(tree)), out_shardings=out_shardings)(params)
    return TrainState(params, opt_state)


def abstract_state(
    params: Params, logical_axes: Params, tx: Transformation, mesh: Mesh
) -> TrainState:
    """The state of `init_state` as `ShapeDtypeStruct`s with shardings; nothing is allocated."""
    sharded = rules.shardings(logical_axes, mesh)
    if isinstance(tx, FrugalAdam):
        return TrainState(_abstract(params, sharded), tx.abstract(params, sharded, mesh))
    moments = jax.eval_shape(lambda tree: tx.init(_wide(tree)), params)
    moment_shardings = optax.tree_map_params(
        tx,
        lambda _, sharding: sharding,
        moments,
        sharded,
        transform_non_params=lambda _: rules.replicated(mesh),
    )
    return _abstract(TrainState(params, moments), TrainState(sharded, moment_shardings))


def in_host_memory(tx: Transformation, state: TrainState) -> Any:
    """What of a state is in host memory, also where devices are described and have no memories."""
    if not isinstance(tx, FrugalAdam) or not tx.offload:
        return ()

    def away(path: Any, param: Any, kept: Any) -> Any:
        return kept if is_kernel(path, param) else ()

    return jax.tree_util.tree_map_with_path(away, state.params, state.opt_state.kept)


def _abstract(tree: Any, shardings: Any) -> Any:
    """Arrays as `ShapeDtypeStruct`s with shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def micro_at(micros: Micro, index: int | jax.Array) -> Micro:
    """Micro-batch `index` of arrays with a leading axis A."""
    return {name: array[index] for name, array in micros.items()}


def _cast(tree: Params, dtype: str | None) -> Params:
    """The tree in a dtype; None: as it is."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree) if dtype else tree


def _wide(params: Params) -> Params:
    """The tree in float32: the dtype of moments and updates."""
    return _cast(params, "float32")


def _is_one(batch: dict[str, Any]) -> bool:
    """Whether the batches of this shape have one micro-batch each."""
    return all(len(array) == 1 for array in batch["micro"].values())


def _sum_dtype(tx: Transformation, batch: dict[str, Any]) -> str | None:
    """The dtype of summed gradients; None: the gradients of one micro-batch stay as they are."""
    if not isinstance(tx, FrugalAdam):
        return "float32"
    is_sum = tx.accumulate_dtype != "float32" or not _is_one(batch)
    return tx.accumulate_dtype if is_sum else None


def _updated(
    tx: Transformation,
    state: TrainState,
    gradients: Params,
    weight: jax.Array,
    learning_rate: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """(the new state, norm of the gradient before clipping) of summed gradients."""
    if isinstance(tx, FrugalAdam):
        params, kept, norm = tx.apply(
            gradients, weight, state.params, state.opt_state, learning_rate
        )
        return TrainState(params, kept), norm
    gradients = jax.tree.map(lambda gradient: gradient / weight, gradients)
    # Weight decay too is computed in float32.
    updates, opt_state = tx.update(gradients, state.opt_state, _wide(state.params))
    params = jax.tree.map(
        # Added in float32, and rounded once, whatever the dtype of the parameters.
        lambda param, update: (param + learning_rate * update).astype(param.dtype),
        state.params,
        updates,
    )
    return TrainState(params, opt_state), optax.tree.norm(gradients)


def _summed(
    objective: Objective,
    frozen: Params,
    params: Params,
    batch: dict[str, Any],
    shardings: Params,
    dtype: str | None = "float32",
) -> tuple[Sums, Params]:
    """Sums of the objective and gradients of `params` over the micro-batches in use.

    The gradients of each micro-batch are constrained to the `shardings` of the parameters, so that
    no device ever holds all of them. They are summed in `dtype`; None: in those of the parameters.
    """

    def value_and_grad(micro: Micro) -> tuple[Sums, Params]:
        def loss(params: Params) -> tuple[jax.Array, Sums]:
            sums = objective(join(frozen, params), micro)
            return sums.loss, sums

        (_, sums), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return sums, jax.lax.with_sharding_constraint(_cast(gradients, dtype), shardings)

    def add(index: jax.Array, total: tuple[Sums, Params]) -> tuple[Sums, Params]:
        return jax.tree.map(jnp.add, total, value_and_grad(micro_at(batch["micro"], index)))

    first = micro_at(batch["micro"], 0)
    if _is_one(batch):
        return value_and_grad(first)  # saves the memory of a running sum
    shapes = jax.eval_shape(value_and_grad, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.fori_loop(0, batch["count"], add, zeros)
