"""An update of each parameter by itself, layer by layer, and large ones piece by piece."""

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from stair_jax.training.optimizers.host_memory import came_from_host
from stair_jax.training.optimizers.random_bits import WHOLE, Rows, key_of

Params = Any
_LAYERS = "layers"  # below it, parameters are stacked over layers
_PIECE = 2**24  # elements of a piece at most, of parameters outside of the layers
_MOST_PIECES = 1024
_PARTS = 8  # into which the rows of a piece should be divisible, for meshes
# (key, parameter, gradient, what is kept of it, rows) -> (parameter, what is kept of it), of one
# layer, or of these rows.
Update = Callable[[jax.Array, jax.Array, jax.Array, Any, Rows], tuple[jax.Array, Any]]


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
      in_turn: whether layers, and pieces of what is no layer, are loops that write into the arrays
        that they read, so that what an update needs besides is there for one of them at a time;
        else all are updated at once.
    """
    treedef: Any
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    states = list(zip([leaf for _, leaf in paths], treedef.flatten_up_to(kept), strict=True))
    slopes = treedef.flatten_up_to(gradients)
    stacked = [number for number, (path, _) in enumerate(paths) if is_stacked(path)]

    def updated(
        number: int, layer: jax.Array, state: Any, gradient: jax.Array, rows: Rows = WHOLE
    ) -> Any:
        name = zlib.crc32(jax.tree_util.keystr(paths[number][0]).encode())
        return update(key_of(name, layer), state[0], gradient, state[1], rows)

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
        own = partial(updated, number, jnp.uint32(0))
        count = num_pieces(*states[number]) if in_turn else 1
        new[number] = _in_pieces(own, states[number], slopes[number], count)
    ordered = (new[number] for number in range(len(paths)))
    params, kept = zip(*ordered, strict=True)
    return treedef.unflatten(params), treedef.unflatten(kept)


def num_pieces(param: jax.Array, kept: Any) -> int:
    """In how many pieces of rows a parameter is updated; 1: as a whole.

    As few as make a piece small enough, of all numbers that divide its rows and leave each device
    of a mesh whole rows. What is kept has to have the same rows, which the two sides of a factored
    moment have not; of arrays in the memory of the host, the parameter is updated as a whole.
    """
    leaves = jax.tree.leaves(kept)
    has_rows = all(leaf.ndim > 1 and leaf.shape[0] == param.shape[0] for leaf in leaves)
    if param.size <= _PIECE or not has_rows or came_from_host(kept):
        return 1
    rows = param.shape[0] // math.gcd(param.shape[0], _PARTS)
    counts = [each for each in range(1, _MOST_PIECES + 1) if rows % each == 0]
    return next((each for each in counts if param.size <= each * _PIECE), counts[-1])


def _in_pieces(updated: Callable[..., Any], state: Any, gradient: jax.Array, count: int) -> Any:
    """A parameter with what is kept of it, updated in so many pieces.

    Piece i has the rows i, i + count, ...: where a mesh splits the rows, a piece is split alike.
    """
    if count == 1:
        return updated(state, gradient)

    def apart(array: jax.Array) -> jax.Array:
        return array.reshape(array.shape[0] // count, count, *array.shape[1:])

    slopes = apart(gradient)

    def of_piece(piece: jax.Array, wholes: Any) -> Any:
        one, slope = _at((wholes, slopes), piece, axis=1)
        return _put(wholes, piece, updated(one, slope, Rows(piece, count)), axis=1)

    looped = jax.lax.fori_loop(0, count, of_piece, jax.tree.map(apart, state))
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), looped)


def _at(stacked: Any, layer: jax.Array, axis: int = 0) -> Any:
    """One layer of a tree of arrays that are stacked along an axis."""
    return jax.tree.map(
        lambda array: jax.lax.dynamic_index_in_dim(array, layer, axis, keepdims=False), stacked
    )


def _put(stacked: Any, layer: jax.Array, one: Any, axis: int = 0) -> Any:
    """The tree with one layer in its place."""
    return jax.tree.map(
        lambda array, part: jax.lax.dynamic_update_index_in_dim(array, part, layer, axis),
        stacked,
        one,
    )
