"""The device programs of the engine, compiled once for a config and a set of shapes.

A slot holds a sequence whose last token has not been through the model yet: the cache has the
tokens before it. So a prompt is prefilled without its last token, and every sampled token, the
first one too, comes out of the one decode program.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from stair_jax.decoding.requests import MAX_STOP_IDS
from stair_jax.decoding.sampling import SamplingRows, sample
from stair_jax.models.cache import Cache, empty_cache
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import mask_padding
from stair_jax.models.transformer import Params, apply, output_embedding, prefill

NO_TOKEN = -1


class Rows(NamedTuple):
    """What the decode program knows about N sequences beside their cache.

    Attributes:
        token: [N] int32, the last token.
        position: [N] int32, where it stands.
        remaining: [N] int32, tokens that may still be sampled.
        alive: [N] bool.
        stop_ids: [N, 8] int32, filled up with -1.
        sampling: the settings of the N rows.
    """

    token: jax.Array
    position: jax.Array
    remaining: jax.Array
    alive: jax.Array
    stop_ids: jax.Array
    sampling: SamplingRows


class Slots(NamedTuple):
    """The state of all slots; donated to each program and returned by it."""

    rows: Rows
    cache: Cache


@partial(jax.jit, static_argnums=(0, 1, 2))
def empty_slots(config: ModelConfig, num_slots: int, length: int) -> Slots:
    """Slots [num_slots] with room for `length` tokens, none alive."""
    zeros = jnp.zeros(num_slots, jnp.int32)
    sampling = SamplingRows(
        temperature=jnp.zeros(num_slots),
        top_k=zeros,
        top_p=jnp.ones(num_slots),
        keys=jnp.zeros((num_slots, 2), jnp.uint32),
    )
    rows = Rows(
        token=zeros,
        position=zeros,
        remaining=zeros,
        alive=zeros > 0,
        stop_ids=jnp.full((num_slots, MAX_STOP_IDS), NO_TOKEN),
        sampling=sampling,
    )
    return _placed(config, Slots(rows, empty_cache(config, num_slots, length)))


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def admit(
    config: ModelConfig,
    params: Params,
    slots: Slots,
    prompts: jax.Array,
    rows: Rows,
    source: jax.Array,
    target: jax.Array,
) -> Slots:
    """Prefills P prompts and puts A sequences into slots.

    Args:
        config: of the model.
        params: of the model.
        slots: donated.
        prompts: [P, T] int32, the tokens before each sequence's last one, padded on the right with
            any token: what padding leaves in the cache is overwritten before a query sees it.
        rows: of the A sequences.
        source: [A] int32, the prompt of each sequence.
        target: [A] int32, its slot; the number of slots for a row that is padding.
    """
    length = prompts.shape[1]
    positions = jnp.broadcast_to(jnp.arange(length), prompts.shape)
    _, cache = prefill(config, params, prompts, positions)
    admitted = Slots(
        jax.tree.map(lambda old, new: old.at[target].set(new, mode="drop"), slots.rows, rows),
        jax.tree.map(
            lambda old, new: old.at[target, :length].set(new[source], mode="drop"),
            slots.cache,
            cache,
        ),
    )
    return _placed(config, admitted)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode(
    config: ModelConfig, num_steps: int, params: Params, slots: Slots, enough: jax.Array
) -> tuple[Slots, jax.Array]:
    """Samples up to `num_steps` tokens in each slot that is alive.

    Args:
        config: of the model.
        num_steps: tokens at most.
        params: of the model.
        slots: donated.
        enough: [] int32; stops as soon as no more slots than this are alive.

    Returns:
        The slots, and [S, 2 * num_steps] int32: tokens (-1 where none was sampled), then the bits
        of their float32 log-probabilities.
    """
    head = output_embedding(params, config).astype(config.dtype)
    num_slots = slots.rows.token.shape[0]

    def body(carry: tuple) -> tuple:
        step, rows, cache, tokens, logps = carry
        hidden, cache = apply(
            config, params, rows.token[:, None], rows.position[:, None], None, cache
        )
        logits = _logits(config, hidden[:, 0], head)
        # A row at rest is greedy, which costs nothing.
        temperature = jnp.where(rows.alive, rows.sampling.temperature, 0.0)
        sampling = rows.sampling._replace(temperature=temperature)
        new, logp = sample(logits, sampling, rows.position + 1)
        tokens = tokens.at[:, step].set(jnp.where(rows.alive, new, NO_TOKEN))
        logps = logps.at[:, step].set(logp)
        return step + 1, _advance(rows, new), cache, tokens, logps

    def unfinished(carry: tuple) -> jax.Array:
        return (carry[0] < num_steps) & (jnp.sum(carry[1].alive) > enough)

    tokens = jnp.full((num_slots, num_steps), NO_TOKEN, jnp.int32)
    logps = jnp.zeros((num_slots, num_steps), jnp.float32)
    start = (jnp.int32(0), slots.rows, slots.cache, tokens, logps)
    _, rows, cache, tokens, logps = lax.while_loop(unfinished, body, start)
    packed = jnp.concatenate([tokens, lax.bitcast_convert_type(logps, jnp.int32)], axis=1)
    return _placed(config, Slots(rows, cache)), packed


@partial(jax.jit, static_argnums=0)
def score(
    config: ModelConfig, params: Params, prompts: jax.Array, last: jax.Array, ids: jax.Array
) -> jax.Array:
    """Log-probabilities of the next token.

    Args:
        config: of the model.
        params: of the model.
        prompts: [P, T] int32, padded on the right.
        last: [P] int32, the position of the last real token.
        ids: [P, W] int32, the candidates.

    Returns:
        [P, W] float32.
    """
    positions = jnp.broadcast_to(jnp.arange(prompts.shape[1]), prompts.shape)
    hidden, _ = apply(config, params, prompts, positions)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    logits = _logits(config, hidden, output_embedding(params, config).astype(config.dtype))
    chosen = jnp.take_along_axis(logits, ids, axis=-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def _logits(config: ModelConfig, hidden: jax.Array, head: jax.Array) -> jax.Array:
    """Logits `[B, padded_vocab_size]` in float32, those of padding rows -inf."""
    logits = jnp.einsum("bd,vd->bv", hidden, head, preferred_element_type=jnp.float32)
    logits = nn.with_logical_constraint(logits, ("batch", "activation_vocab"))
    return mask_padding(logits, config.vocab_size)


def slot_axes(config: ModelConfig, slots: Slots) -> Slots:
    """A PartitionSpec of logical axis names for each array of `slots`."""
    heads = "activation_kv_heads" if config.shard_kv_heads else "activation_kv_heads_whole"
    axes = ("batch", "cache_length", heads, None)
    # A row has fewer axes than the cache, and only the first of them is split.
    return jax.tree.map(
        lambda array: PartitionSpec(*(axes if array.ndim == 4 else ("batch", None)[: array.ndim])),
        slots,
    )


def _placed(config: ModelConfig, slots: Slots) -> Slots:
    """The slots, split over the mesh in use: each program takes them as the last one gave them."""
    return jax.tree.map(nn.with_logical_constraint, slots, slot_axes(config, slots))


def _advance(rows: Rows, new: jax.Array) -> Rows:
    """The rows after `new` [S] was sampled; those that are not alive stand still."""
    stopped = jnp.any(new[:, None] == rows.stop_ids, axis=-1)
    remaining = rows.remaining - rows.alive
    return rows._replace(
        token=jnp.where(rows.alive, new, rows.token),
        position=rows.position + rows.alive,
        remaining=remaining,
        alive=rows.alive & ~stopped & (remaining > 0),
    )
