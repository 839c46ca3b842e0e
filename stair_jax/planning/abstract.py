"""Arrays that need not exist: the shapes, dtypes and shardings that a function is lowered with."""

from functools import partial
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel import rules

Place: TypeAlias = "Mesh | jax.Device"  # where a program runs; on one device, outside of any mesh


def abstract(tree: Any, sharding: Sharding | None = None) -> Any:
    """Arrays or shapes as shapes of one sharding; None: that of an array of the host."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def on_place(tree: Any, axes: Any, place: Place) -> Any:
    """Arrays or shapes laid out by `axes`, a tree of PartitionSpecs of logical axis names."""
    if isinstance(place, Mesh):
        return jax.tree.map(abstract, tree, rules.shardings(axes, place))
    return abstract(tree, SingleDeviceSharding(place))


def rows_on(place: Place, tree: Any) -> Any:
    """Arrays or shapes as `Placement.rows` puts them."""
    return abstract(tree, rules.rows_sharding(place) if isinstance(place, Mesh) else None)


def abstract_params(config: ModelConfig, place: Place) -> Any:
    """The parameters of a model."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    return on_place(shapes, logical_axes(config), place)


def abstract_prm(config: ModelConfig, axes: Any, place: Place) -> Any:
    """The parameters of a process reward model, those in `axes`: {"model": ..., "score": ...}."""
    key = jax.random.key(0)
    model = jax.eval_shape(partial(init_params, config), key)
    shapes = {
        "model": {name: model[name] for name in axes["model"]},
        "score": jax.eval_shape(partial(init_score_head, config), key),
    }
    return on_place(shapes, axes, place)
