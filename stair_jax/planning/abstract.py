"""Abstract arrays (`jax.ShapeDtypeStruct` with shardings) for ahead-of-time lowering."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.parallel import rules
from stair_jax.parallel.mesh import use_mesh
from stair_jax.planning.gpu_compiler import is_described, standing_in

Place: TypeAlias = "Mesh | jax.Device"  # where a program runs; a single device is without a mesh


@contextmanager
def traced_for(place: Place) -> Iterator[None]:
    """Context in which functions are traced for a place."""
    is_mesh = isinstance(place, Mesh)
    device = place.devices.flat[0] if is_mesh else place
    on_mesh = use_mesh(place) if is_mesh else nullcontext()
    with on_mesh, standing_in(device) if is_described(device) else nullcontext():
        yield


def abstract(tree: Any, sharding: Sharding | None = None) -> Any:
    """A pytree of arrays (or shapes) as `ShapeDtypeStruct`s with one sharding.

    `sharding` None stands for host arrays, which jit transfers as it likes.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def on_place(tree: Any, axes: Any, place: Place) -> Any:
    """A pytree of arrays (or shapes) as `ShapeDtypeStruct`s on a place.

    Args:
      tree: the arrays.
      axes: pytree like `tree` of PartitionSpecs with logical axis names; not used on one device.
      place: a mesh or a device.
    """
    if isinstance(place, Mesh):
        return jax.tree.map(abstract, tree, rules.shardings(axes, place))
    return abstract(tree, SingleDeviceSharding(place))


def rows_on(place: Place, tree: Any) -> Any:
    """A pytree of arrays (or shapes) as `ShapeDtypeStruct`s, placed as by `Placement.rows`."""
    return abstract(tree, rules.rows_sharding(place) if isinstance(place, Mesh) else None)


def abstract_params(config: ModelConfig, place: Place) -> Any:
    """The parameters of a model as `ShapeDtypeStruct`s."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    return on_place(shapes, logical_axes(config), place)


def abstract_prm(config: ModelConfig, axes: Any, place: Place) -> Any:
    """The parameters of a PRM, {"model": ..., "score": ...}, as `ShapeDtypeStruct`s.

    Of the model only the parts in `axes["model"]`: a PRM has no vocabulary head.
    """
    key = jax.random.key(0)
    model = jax.eval_shape(partial(init_params, config), key)
    shapes = {
        "model": {name: model[name] for name in axes["model"]},
        "score": jax.eval_shape(partial(init_score_head, config), key),
    }
    return on_place(shapes, axes, place)
