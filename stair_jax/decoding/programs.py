"""The device programs of the engine, compiled once for a config and a set of shapes.

A slot holds a sequence whose last token has not been through the model yet: its pages have the
tokens before it. So a prompt is prefilled without its last token, and every sampled token, the
first one too, and every score of a next token comes out of the one decode program.

On a mesh the slots and the pages are split over `data` x `fsdp`: each part is a shard, whose rows
name pages of its own, by ids that count from 0 in each shard.
"""

from functools import cache, partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from stair_jax.decoding.requests import MAX_SCORE_IDS
from stair_jax.decoding.rows import NO_TOKEN, Rows, empty_rows, replaced, unpack
from stair_jax.decoding.sampling import sample, sample_quickly, score
from stair_jax.models import serving
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged_attention import get_paged_backend, page_axes
from stair_jax.models.paged_view import View
from stair_jax.models.serving import Served
from stair_jax.parallel.rules import BATCH_AXES, RULES

# How a decode call goes. A "stopping" one ends as soon as no slot is alive; the others do all
# steps, as a loop of known length needs nobody to watch it. A "quick" one samples without branches,
# which a GPU takes with the help of the host, that could not plan the next round meanwhile; it
# leaves slots that would need them as they are, and a "full" one goes on with these.
Way = Literal["stopping", "full", "quick"]

_GPU_OPTIONS = {
    # XLA takes it that a program may use four fifths of a GPU's memory. Weights and cache are more
    # than that, and products and norms would be computed a second time, though nothing is saved.
    "xla_disable_hlo_passes": "rematerialization",
    # Where XLA takes a kernel of Triton for a product, one of cuBLAS has been a little faster.
    "xla_gpu_enable_triton_gemm": False,
}


class State(NamedTuple):
    """What stays on the devices from call to call; donated to each program and returned by it.

    Attributes:
        rows: of the slots.
        pages: of all layers, as the backend has them.
    """

    rows: Rows
    pages: Any


class Programs(NamedTuple):
    """The functions below that take a state over, jitted."""

    prefill: Any
    copy_pages: Any
    decode: Any


@cache
def get_programs(platform: str) -> Programs:
    """The programs as they are compiled for the devices of a platform, e.g. "gpu"."""
    options = _GPU_OPTIONS if platform in ("gpu", "cuda") else None
    jit = partial(jax.jit, compiler_options=options)
    return Programs(
        prefill=jit(prefill, static_argnums=(0, 1), donate_argnums=3),
        copy_pages=jit(copy_pages, static_argnums=(0, 1, 2), donate_argnums=3),
        decode=jit(decode, static_argnums=(0, 1, 2, 3), donate_argnums=5),
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def empty_state(
    config: ModelConfig,
    backend: str,
    num_slots: int,
    num_pages: int,
    page_size: int,
    kv_dtype: str,
) -> State:
    """Slots at rest, and `num_pages` pages; both are numbers of all shards together."""
    attention = get_paged_backend(backend)
    layers = config.num_hidden_layers
    if attention.stacked:
        pages = attention.empty(config, num_pages, page_size, layers, kv_dtype)
    else:
        pages = tuple(
            attention.empty(config, num_pages, page_size, 1, kv_dtype) for _ in range(layers)
        )
    return _placed(config, State(empty_rows(num_slots), pages))


def prefill(
    config: ModelConfig,
    backend: str,
    served: Served,
    state: State,
    tokens: jax.Array,
    spans: jax.Array,
    table: jax.Array,
) -> State:
    """Puts tokens of prompts through the model; several rows may go on with one prompt.

    Args:
        config: of the model.
        backend: of attention, by name.
        served: of the model.
        state: donated.
        tokens: [R, T] int32.
        spans: [R, 2] int32, the position of each row's first token, and how many of its tokens
            count.
        table: [R, W] int32, the pages of the row's sequence in order.
    """
    view = View(table, spans[:, 0], spans[:, 1])
    attention = get_paged_backend(backend)
    _, pages = serving.forward(config, served, attention, tokens, state.pages, view)
    return _placed(config, State(state.rows, pages))


def copy_pages(
    config: ModelConfig,
    backend: str,
    num_pages: int,
    state: State,
    source: jax.Array,
    target: jax.Array,
) -> State:
    """Copies pages of all layers, as if all at once.

    Args:
        config: of the model.
        backend: of attention, by name.
        num_pages: of a shard.
        state: donated.
        source: [C] int32 in each shard, the pages to read.
        target: alike, the pages to write, each another one; what is no page is written nowhere.
    """
    axes = page_axes(config, state.pages)

    def copy(pages: Any, source: jax.Array, target: jax.Array) -> Any:
        def copy_leaf(leaf: jax.Array) -> jax.Array:
            # A stacked leaf has the pages of one layer after those of another. Ids of the first
            # axis alone: with an axis of layers, XLA would copy the whole leaf on a GPU.
            layers = jnp.arange(len(leaf) // num_pages, dtype=jnp.int32)[:, None]
            read = (layers * num_pages + source).reshape(-1)
            beyond = len(leaf) + jnp.arange(layers.size * len(target), dtype=jnp.int32)
            inside = jnp.broadcast_to(target < num_pages, (len(layers), len(target)))
            written = (layers * num_pages + target).reshape(-1)
            written = jnp.where(inside.reshape(-1), written, beyond)
            return leaf.at[written].set(leaf[read], mode="drop", unique_indices=True)

        return jax.tree.map(copy_leaf, pages)

    if jax.sharding.get_abstract_mesh().size > 1:
        specs = jax.tree.map(lambda names: nn.logical_to_mesh_axes(names, RULES), axes)
        rows = PartitionSpec(BATCH_AXES)
        copy = jax.shard_map(copy, in_specs=(specs, rows, rows), out_specs=specs, check_vma=False)
    return _placed(config, State(state.rows, copy(state.pages, source, target)))


def decode(
    config: ModelConfig,
    backend: str,
    num_steps: int,
    way: Way,
    served: Served,
    state: State,
    changes: jax.Array,
    table: jax.Array,
    line: jax.Array,
    line_table: jax.Array,
) -> tuple[State, jax.Array]:
    """Puts rows into slots, and samples up to `num_steps` tokens in each slot that is alive.

    Slots that are at rest then go to the rows of the line, in the order of both, in each shard.

    Args:
        config: of the model.
        backend: of attention, by name.
        num_steps: tokens at most.
        way: see `Way`.
        served: of the model.
        state: donated.
        changes: [S, WIDTH] int32, see `rows.py`.
        table: [S, W] int32, the pages of each slot's sequence in order, with room for the tokens
            of this call.
        line: [L, WIDTH] int32; as many rows of each shard as have "replace" set, the first ones.
        line_table: [L, W] int32, their pages.

    Returns:
        The state, and [S, 2 * num_steps + 8] int32: tokens (-1 where none was sampled), the bits
        of their float32 log-probabilities, and the bits of the log-probabilities of score ids. A
        slot that sampled fewer than `num_steps` tokens and has not ended needs a "full" call.
    """
    mask, new = unpack(changes)
    rows, table = _taken_over(replaced(mask, new, state.rows), table, line, line_table)
    num_slots = table.shape[0]
    attention = get_paged_backend(backend)

    def step(index: jax.Array, carry: _Carry) -> _Carry:
        rows = carry.rows
        view = View(table, rows.position, rows.alive.astype(jnp.int32))
        hidden, pages = serving.forward(
            config, served, attention, rows.token[:, None], carry.pages, view
        )
        logits = serving.logits(config, served, hidden[:, 0])
        # A row at rest is greedy, which costs nothing.
        temperature = jnp.where(rows.alive & ~rows.scoring, rows.sampling.temperature, 0.0)
        settings = rows.sampling._replace(temperature=temperature)
        moved = rows.alive
        if way == "quick":
            token, logp, is_sampled = sample_quickly(logits, settings, rows.position + 1)
            moved &= is_sampled
        else:
            token, logp = sample(logits, settings, rows.position + 1)
        sampled = moved & ~rows.scoring
        scored = (moved & rows.scoring)[:, None]
        return _Carry(
            rows=_advance(rows, token, moved),
            pages=pages,
            tokens=carry.tokens.at[:, index].set(jnp.where(sampled, token, NO_TOKEN)),
            logps=carry.logps.at[:, index].set(logp),
            scores=jnp.where(scored, score(logits, rows.score_ids), carry.scores),
        )

    carry = _Carry(
        rows=rows,
        pages=state.pages,
        tokens=jnp.full((num_slots, num_steps), NO_TOKEN, jnp.int32),
        logps=jnp.zeros((num_slots, num_steps), jnp.float32),
        scores=jnp.zeros((num_slots, MAX_SCORE_IDS), jnp.float32),
    )
    if way == "stopping":
        _, carry = lax.while_loop(
            lambda state: (state[0] < num_steps) & jnp.any(state[1].rows.alive),
            lambda state: (state[0] + 1, step(*state)),
            (jnp.int32(0), carry),
        )
    else:
        carry = lax.fori_loop(0, num_steps, step, carry)
    bits = [lax.bitcast_convert_type(part, jnp.int32) for part in (carry.logps, carry.scores)]
    packed = jnp.concatenate([carry.tokens, *bits], axis=1)
    return _placed(config, State(carry.rows, carry.pages)), packed


def _taken_over(
    rows: Rows, table: jax.Array, line: jax.Array, line_table: jax.Array
) -> tuple[Rows, jax.Array]:
    """The rows and their pages after slots at rest have gone to the line."""

    def of_shard(
        rows: Rows, table: jax.Array, line: jax.Array, line_table: jax.Array
    ) -> tuple[Rows, jax.Array]:
        is_free = ~rows.alive
        place = jnp.cumsum(is_free) - 1
        takes = is_free & (place < jnp.sum(unpack(line)[0]))
        place = jnp.where(takes, place, 0)
        new = unpack(line[place])[1]
        return replaced(takes, new, rows), jnp.where(takes[:, None], line_table[place], table)

    if jax.sharding.get_abstract_mesh().size > 1:
        split = PartitionSpec(BATCH_AXES)
        of_shard = jax.shard_map(of_shard, in_specs=split, out_specs=split, check_vma=False)
    return of_shard(rows, table, line, line_table)


class _Carry(NamedTuple):
    rows: Rows
    pages: Any
    tokens: jax.Array
    logps: jax.Array
    scores: jax.Array


def _advance(rows: Rows, token: jax.Array, moved: jax.Array) -> Rows:
    """The rows after `token` [S] was sampled, or scored, where `moved` [S]."""
    stopped = jnp.any(token[:, None] == rows.stop_ids, axis=-1) | rows.scoring
    remaining = jnp.where(stopped, 0, rows.remaining - 1)
    return rows._replace(
        token=jnp.where(moved, token, rows.token),
        position=rows.position + moved,
        remaining=jnp.where(moved, remaining, rows.remaining),
    )


def state_axes(config: ModelConfig, state: State) -> State:
    """A PartitionSpec of logical axis names for each array of `state`, or of its shapes."""
    rows = jax.tree.map(
        lambda array: PartitionSpec("batch", *[None] * (array.ndim - 1)), state.rows
    )
    return State(rows, page_axes(config, state.pages))


def _placed(config: ModelConfig, state: State) -> State:
    """The state, split over the mesh in use: each program takes it as the last one gave it."""
    return jax.tree.map(nn.with_logical_constraint, state, state_axes(config, state))
