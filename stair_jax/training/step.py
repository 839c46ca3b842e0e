"""The training step: gradients summed over micro-batches, one division, one update."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stair_jax.parallel import rules

Params = Any
Micro = dict[str, jax.Array]  # fields of one micro-batch, see batches.py


class Sums(NamedTuple):
    """What an objective adds up over a micro-batch.

    The loss of a step is the sum of `loss` over its micro-batches, divided by the sum of
    `weight`; so are the metrics. `weight` must not depend on the parameters.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]


Objective = Callable[[Params, Micro], Sums]


class TrainState(NamedTuple):
    """What a step changes."""

    params: Params
    opt_state: optax.OptState


TrainStep = Callable[
    [TrainState, dict[str, Any], jax.Array], tuple[TrainState, dict[str, jax.Array]]
]


def make_train_step(
    objective: Objective, tx: optax.GradientTransformation, state: TrainState
) -> TrainStep:
    """The jitted step `(state, batch, learning_rate) -> (state, metrics)`; it takes over `state`.

    `batch` is {"count": int32 scalar, "micro": arrays with a leading axis A}. The first `count`
    micro-batches are run, so that the shapes stay the same however many a batch needs (see
    batches.py). `tx` gives the updates of a learning rate of 1. Metrics: "loss", "grad_norm"
    (before clipping), "weight", and those of the objective.

    The new state is sharded as `state` is, and so are the sums of the gradients; metrics are whole
    on each device. `state` may be the shapes of `abstract_state`. Equal arguments give the same
    jitted function.
    """
    shardings, treedef = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, state))
    return _train_step(objective, tx, tuple(shardings), treedef)


@functools.lru_cache(maxsize=8)
def _train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    shardings: tuple[NamedSharding, ...],
    treedef: jax.tree_util.PyTreeDef,
) -> TrainStep:
    out_shardings = jax.tree.unflatten(treedef, shardings)

    def step(
        state: TrainState, batch: dict[str, Any], learning_rate: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        sums, gradients = _summed(objective, state.params, batch, out_shardings.params)
        weight = jnp.maximum(sums.weight, jnp.finfo(jnp.float32).tiny)
        gradients = jax.tree.map(lambda gradient: gradient / weight, gradients)
        updates, opt_state = tx.update(gradients, state.opt_state, _wide(state.params))
        params = jax.tree.map(
            lambda param, update: (param + learning_rate * update).astype(param.dtype),
            state.params,
            updates,
        )
        metrics = {
            "loss": sums.loss / weight,
            "grad_norm": optax.tree.norm(gradients),
            "weight": sums.weight,
            **{name: value / weight for name, value in sums.metrics.items()},
        }
        return TrainState(params, opt_state), metrics

    whole = NamedSharding(shardings[0].mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=(out_shardings, whole))


def init_state(
    params: Params, logical_axes: Params, tx: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Puts parameters and zero moments on the mesh; each moment is sharded as its parameter.

    What is on the mesh already is not copied: the first step takes over `params` too.
    Moments are of the optimizer's dtypes (float32 by default) whatever the parameters are.
    `logical_axes` is a tree of PartitionSpecs of logical axis names.
    """
    params = jax.device_put(params, rules.shardings(logical_axes, mesh))
    like = abstract_state(params, logical_axes, tx, mesh).opt_state
    out_shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    opt_state = jax.jit(lambda tree: tx.init(_wide(tree)), out_shardings=out_shardings)(params)
    return TrainState(params, opt_state)


def abstract_state(
    params: Params, logical_axes: Params, tx: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of the state that `init_state` makes of such parameters."""
    sharded = rules.shardings(logical_axes, mesh)
    moments = jax.eval_shape(lambda tree: tx.init(_wide(tree)), params)
    moment_shardings = optax.tree_map_params(
        tx,
        lambda _, sharding: sharding,
        moments,
        sharded,
        transform_non_params=lambda _: rules.replicated(mesh),
    )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        TrainState(params, moments),
        TrainState(sharded, moment_shardings),
    )


def micro_at(micros: Micro, index: int | jax.Array) -> Micro:
    """One micro-batch of arrays with a leading axis A."""
    return {name: array[index] for name, array in micros.items()}


def _wide(params: Params) -> Params:
    return jax.tree.map(lambda param: param.astype(jnp.float32), params)


def _summed(
    objective: Objective, params: Params, batch: dict[str, Any], shardings: Params
) -> tuple[Sums, Params]:
    """Sums of the objective and their gradients (float32) over the micro-batches in use.

    The gradients get the `shardings` of the parameters, so that no device holds all of them.
    """

    def value_and_grad(micro: Micro) -> tuple[Sums, Params]:
        def loss(params: Params) -> tuple[jax.Array, Sums]:
            sums = objective(params, micro)
            return sums.loss, sums

        (_, sums), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return sums, jax.lax.with_sharding_constraint(_wide(gradients), shardings)

    def add(index: jax.Array, total: tuple[Sums, Params]) -> tuple[Sums, Params]:
        return jax.tree.map(jnp.add, total, value_and_grad(micro_at(batch["micro"], index)))

    first = micro_at(batch["micro"], 0)
    if all(len(array) == 1 for array in batch["micro"].values()):
        return value_and_grad(first)  # no sum to keep beside it
    shapes = jax.eval_shape(value_and_grad, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.fori_loop(0, batch["count"], add, zeros)
