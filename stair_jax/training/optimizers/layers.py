"""An update of each parameter by itself, layer by layer."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.training.optimizers.random_bits import key_of

Params = Any
_LAYERS = "layers"  # below it, parameters are stacked over layers
# (key, parameter, gradient, what is kept of it) -> (parameter, what is kept of it), of one layer.
Update = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def is_stacked(path: Any) -> bool:
    """Whether the parameter at a path of a tree has a leading axis of layers."""
    return any(getattr(key, "key", None) == _LAYERS for key in path)


def update_each(
    update: Update, params: Params, gradients: Params, kept: Any, in_turn: bool
) -> tuple[Params, Any]:
    """New parameters and what is kept of them.

    Its keys depend on a parameter's name and layer alone.

    Args:
      update: of a parameter, or of one layer of one that is stacked.
      params: tree of arrays.
      gradients: a tree like it.
      kept: a tree like it with trees of arrays as leaves.
      in_turn: whether layers are a loop that writes into the arrays that it reads, so that what an
        update needs besides is there for one layer at a time; else all are updated at once.
    """
    treedef: Any
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    states = list(zip([leaf for _, leaf in paths], treedef.flatten_up_to(kept), strict=True))
    slopes = treedef.flatten_up_to(gradients)
    stacked = [number for number, (path, _) in enumerate(paths) if is_stacked(path)]

    def updated(number: int, layer: jax.Array, state: Any, gradient: jax.Array) -> Any:
        name = zlib.crc32(jax.tree_util.keystr(paths[number][0]).encode())
        return update(key_of(name, layer), state[0], gradient, state[1])

    def of_layer(layer: jax.Array, wholes: list[Any]) -> list[Any]:
        return [
            _put(whole, layer, updated(number, layer, *_at((whole, slopes[number]), layer)))
            for number, whole in zip(stacked, wholes, strict=True)
        ]

    layers = jnp.arange(len(paths[stacked[0]][1]) if stacked else 0)
    if stacked and in_turn:
        looped = jax.lax.fori_loop(0, len(layers), of_layer, [states[i] for i in stacked])
    else:
        looped = [jax.vmap(partial(updated, i))(layers, states[i], slopes[i]) for i in stacked]
    new = dict(zip(stacked, looped, strict=True))
    for number in set(range(len(paths))) - set(stacked):
        new[number] = updated(number, jnp.uint32(0), states[number], slopes[number])
    ordered = (new[number] for number in range(len(paths)))
    params, kept = zip(*ordered, strict=True)
    return treedef.unflatten(params), treedef.unflatten(kept)


def _at(stacked: Any, layer: jax.Array) -> Any:
    """One layer of a tree of stacked arrays."""
    return jax.tree.map(
        lambda array: jax.lax.dynamic_index_in_dim(array, layer, keepdims=False), stacked
    )


def _put(stacked: Any, layer: jax.Array, one: Any) -> Any:
    """The tree with one layer in its place."""
    return jax.tree.map(
        lambda array, part: jax.lax.dynamic_update_index_in_dim(array, part, layer, 0),
        stacked,
        one,
    )
