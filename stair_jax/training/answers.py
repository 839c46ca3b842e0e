"""Greedy answers of a model in training, for people to read.

The whole sequence goes through the model for each token: there are no keys and values kept, no
pages and no further copy of the weights, and the program runs on any mesh that trains the model. It
is far too slow for anything but a few short texts.
"""

import functools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stair_jax.models import transformer
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import mask_padding
from stair_jax.parallel.mesh import batch_devices, use_mesh
from stair_jax.training.batch_sharding import put_batch
from stair_jax.training.forward_pass import whole
from stair_jax.training.logits import narrowed, products
from stair_jax.training.step import Params


class _State(NamedTuple):
    tokens: jax.Array  # [R, T]
    lengths: jax.Array  # [R]
    ended: jax.Array  # [R] bool


@functools.partial(jax.jit, static_argnums=0)
def continue_greedily(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    stop_ids: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Continues each row by its most probable tokens, to a stop token or to the end of the row.

    Args:
      config: of the model.
      params: of the model.
      tokens: `[R, T]` int32, of which the first `lengths` count.
      lengths: `[R]` int32, at least 1; a row of length T stays as it is.
      stop_ids: `[K]` int32.

    Returns:
      (tokens `[R, T]`, lengths `[R]`) with what was added, stop tokens included.
    """
    places = jnp.arange(tokens.shape[1])[None]
    positions = jnp.broadcast_to(places, tokens.shape)
    head = transformer.output_head(params, config)

    def go_on(state: _State) -> jax.Array:
        return jnp.any(~state.ended & (state.lengths < tokens.shape[1]))

    def extend(state: _State) -> _State:
        segment_ids = (places < state.lengths[:, None]).astype(jnp.int32)
        hidden = transformer.apply(config, params, state.tokens, positions, segment_ids)
        last = jnp.take_along_axis(hidden, state.lengths[:, None, None] - 1, axis=1)[:, 0]
        logits = products(last, narrowed(head, last), head)
        best = jnp.argmax(mask_padding(logits, config.vocab_size), axis=-1).astype(jnp.int32)
        extends = ~state.ended & (state.lengths < tokens.shape[1])
        here = extends[:, None] & (places == state.lengths[:, None])
        return _State(
            jnp.where(here, best[:, None], state.tokens),
            state.lengths + extends,
            state.ended | (extends & jnp.isin(best, stop_ids)),
        )

    start = _State(tokens, lengths, jnp.zeros(lengths.shape, bool))
    end = jax.lax.while_loop(go_on, extend, start)
    return whole(end.tokens), whole(end.lengths)


def num_rows(mesh: Mesh, count: int) -> int:
    """Rows for `count` prompts: the devices split them."""
    parts = batch_devices(mesh)
    return -(-count // parts) * parts


def greedy_answers(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    length: int,
    stop_ids: Collection[int],
    mesh: Mesh,
) -> list[list[int]]:
    """Greedy answers to some prompts; all processes call it together, and have all answers.

    Args:
      config: of the model.
      params: of the model, on the mesh.
      prompts: token ids of each, less than `length`.
      length: most tokens of a prompt and its answer.
      stop_ids: tokens that end an answer.
      mesh: the devices.

    Returns:
      token ids of the answers, with the stop token of those that ended.
    """
    rows = num_rows(mesh, len(prompts))
    tokens = np.zeros((rows, length), np.int32)
    lengths = np.full(rows, length, np.int32)  # rows without a prompt are full
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], lengths[row] = prompt, len(prompt)
    with use_mesh(mesh):
        arrays = put_batch(
            {"tokens": tokens, "lengths": lengths, "stop": np.array([*stop_ids], np.int32)}, mesh
        )
        made, ends = jax.device_get(
            continue_greedily(config, params, arrays["tokens"], arrays["lengths"], arrays["stop"])
        )
    return [made[row, len(prompt) : ends[row]].tolist() for row, prompt in enumerate(prompts)]
