"""The device programs of the engine, compiled once per config and set of shapes.

Invariant: the last token of a slot's sequence has not been through the model yet, and its pages
hold the keys and values of the tokens before it. A prompt is therefore prefilled without its last
token, and the one decode program produces every sampled token, including the first, and every score
of a next token.

On a mesh, slots and pages are split over `data` x `fsdp` into shards. Page ids count from 0 within
each shard, and the rows of a shard refer to its own pages only.
"""

from functools import cache, partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from stair_jax.decoding.requests import MAX_SCORE_IDS
from stair_jax.decoding.sampling.sample import sample, sample_quickly, score
from stair_jax.decoding.slots import NO_TOKEN, Slots, empty_slots, replaced, unpack
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import get_paged_backend, page_axes
from stair_jax.models.paged.view import View
from stair_jax.models.serving import paged_forward
from stair_jax.models.serving.fused_params import FusedParams
from stair_jax.parallel.rules import BATCH_AXES, RULES

# How a decode call runs. "stopping" ends as soon as no slot is alive (CPUs, where a step saved is
# time saved). The others always run all steps: a loop of known trip count has no condition to be
# evaluated on the host. "quick" (GPUs) also samples without branches: XLA evaluates a branch on a
# GPU with the help of the host, which could not plan the next round meanwhile. It leaves slots that
# need a branch as they are, and a "full" call continues them.
DecodeMode = Literal["stopping", "full", "quick"]

_GPU_OPTIONS = {
    # XLA assumes that a program may use four fifths of a GPU's memory. Weights and cache alone
    # exceed that, so the rematerialization pass would compute products and norms twice without
    # saving any memory. And dot-merger would copy each kernel of a small model in every step, to
    # put its adapters' A beside it (docs/decisions.md, the engine).
    "xla_disable_hlo_passes": "rematerialization,dot-merger",
    # cuBLAS was slightly faster wherever XLA would choose a Triton kernel (docs/decisions.md).
    "xla_gpu_enable_triton_gemm": False,
}


class State(NamedTuple):
    """What stays on the devices between calls: donated to each program and returned by it.

    Attributes:
        slots: the slots.
        pages: the KV cache of all layers, in the layout of the attention backend.
    """

    slots: Slots
    pages: Any


class Programs(NamedTuple):
    """The jitted functions below that take and return a `State`."""

    prefill: Any
    copy_pages: Any
    decode: Any


@cache
def get_programs(platform: str) -> Programs:
    """The programs as they are compiled for a platform, e.g. "gpu".

    Cached, so that all engines of a process share the compiled programs.
    """
    options = _GPU_OPTIONS if platform in ("gpu", "cuda") else None
    jit = partial(jax.jit, compiler_options=options)
    return Programs(
        prefill=jit(prefill, static_argnums=(0, 1), donate_argnums=3),
        copy_pages=jit(copy_pages, static_argnums=(0, 1, 2), donate_argnums=3),
        decode=jit(decode, static_argnums=(0, 1, 2, 3), donate_argnums=5),
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5, 6))
def empty_state(
    config: ModelConfig,
    backend: str,
    num_slots: int,
    num_pages: int,
    page_size: int,
    kv_dtype: str,
    has_adapters: bool = False,
) -> State:
    """Idle slots and zeroed pages.

    Args:
        config: the model config.
        backend: name of the attention backend.
        num_slots: slots of all shards together.
        num_pages: pages of all shards together, including page 0 of each shard.
        page_size: tokens per page.
        kv_dtype: dtype of keys and values.
        has_adapters: whether each slot says which adapter it uses.
    """
    attention = get_paged_backend(backend)
    layers = config.num_hidden_layers
    if attention.stacked:
        pages = attention.empty(config, num_pages, page_size, layers, kv_dtype)
    else:
        pages = tuple(
            attention.empty(config, num_pages, page_size, 1, kv_dtype) for _ in range(layers)
        )
    return _placed(config, State(empty_slots(num_slots, has_adapters), pages))


def prefill(
    config: ModelConfig,
    backend: str,
    fused: FusedParams,
    state: State,
    tokens: jax.Array,
    spans: jax.Array,
    table: jax.Array,
) -> State:
    """Computes the keys and values of prompt tokens.

    Several rows may hold consecutive chunks of one prompt.

    Args:
        config: the model config.
        backend: name of the attention backend.
        fused: the model parameters.
        state: donated.
        tokens: [R, T] int32, token ids.
        spans: [R, 2] int32, position of each row's first token, and number of its tokens that are
            not padding; in an engine with adapters [R, 3], the last column is each row's adapter.
        table: [R, W] int32, page ids of each row's sequence in order.
    """
    view = View(table, spans[:, 0], spans[:, 1])
    adapter = None if state.slots.adapter is None else spans[:, 2]
    attention = get_paged_backend(backend)
    _, pages = paged_forward.forward(config, fused, attention, tokens, state.pages, view, adapter)
    return _placed(config, State(state.slots, pages))


def copy_pages(
    config: ModelConfig,
    backend: str,
    num_pages: int,
    state: State,
    source: jax.Array,
    target: jax.Array,
) -> State:
    """Copies pages in all layers; all sources are read before any target is written.

    Args:
        config: the model config.
        backend: name of the attention backend.
        num_pages: pages per shard.
        state: donated.
        source: [C] int32 per shard, pages to read.
        target: [C] int32 per shard, pages to write, all distinct; ids out of range are dropped.
    """
    axes = page_axes(config, state.pages)

    def copy(pages: Any, source: jax.Array, target: jax.Array) -> Any:
        def copy_leaf(leaf: jax.Array) -> jax.Array:
            # In a stacked leaf [layers * num_pages, ...], the pages of one layer follow those of
            # another. Indexed by one flat axis: with a separate axis of layers, XLA would copy the
            # whole leaf on a GPU.
            layers = jnp.arange(len(leaf) // num_pages, dtype=jnp.int32)[:, None]
            read = (layers * num_pages + source).reshape(-1)
            # Padding must stay out of range and distinct in the flat axis too: `target + layer *
            # num_pages` could be a real page of the next layer.
            beyond = len(leaf) + jnp.arange(layers.size * len(target), dtype=jnp.int32)
            inside = jnp.broadcast_to(target < num_pages, (len(layers), len(target)))
            written = (layers * num_pages + target).reshape(-1)
            written = jnp.where(inside.reshape(-1), written, beyond)
            return leaf.at[written].set(leaf[read], mode="drop", unique_indices=True)

        return jax.tree.map(copy_leaf, pages)

    if jax.sharding.get_abstract_mesh().size > 1:
        specs = jax.tree.map(lambda names: nn.logical_to_mesh_axes(names, RULES), axes)
        rows = PartitionSpec(BATCH_AXES)
        # Page ids are local to a shard: each device indexes its own pages.
        copy = jax.shard_map(copy, in_specs=(specs, rows, rows), out_specs=specs, check_vma=False)
    return _placed(config, State(state.slots, copy(state.pages, source, target)))


def decode(
    config: ModelConfig,
    backend: str,
    num_steps: int,
    decode_mode: DecodeMode,
    fused: FusedParams,
    state: State,
    changes: jax.Array,
    table: jax.Array,
    line: jax.Array,
    line_table: jax.Array,
) -> tuple[State, jax.Array]:
    """Updates slots, then decodes up to `num_steps` tokens in each slot that is alive.

    Before the first step, idle slots are assigned to the rows of the line, in ascending order of
    both, within each shard.

    Args:
        config: the model config.
        backend: name of the attention backend.
        num_steps: decode steps.
        decode_mode: see `DecodeMode`.
        fused: the model parameters.
        state: donated.
        changes: [S, WIDTH] int32, packed updates of the slots, see `decoding/slots.py`.
        table: [S, W] int32, page ids of each slot's sequence in order, with room for the tokens of
            this call.
        line: [L, WIDTH] int32, packed rows that wait for a slot; per shard, the valid ones come
            first and have "replace" set.
        line_table: [L, W] int32, their page ids.

    Returns:
        The state, and [S, 2 * num_steps + 8] int32: sampled token ids (-1 where none was sampled),
        the bits of their float32 log-probabilities, and the bits of the float32 log-probabilities
        of the score ids. A slot that sampled fewer than `num_steps` tokens and has not ended needs
        a "full" call.
    """
    mask, new = unpack(changes, state.slots.adapter is not None)
    slots, table = _taken_over(replaced(mask, new, state.slots), table, line, line_table)
    if decode_mode != "quick":
        # Not zeros: an array that is not read would not be donated.
        slots = slots._replace(stalled=slots.stalled & False)
    num_slots = table.shape[0]
    attention = get_paged_backend(backend)

    def step(index: jax.Array, carry: _Carry) -> _Carry:
        slots = carry.slots
        view = View(table, slots.position, slots.alive.astype(jnp.int32))
        hidden, pages = paged_forward.forward(
            config, fused, attention, slots.token[:, None], carry.pages, view, slots.adapter
        )
        logits = paged_forward.logits(config, fused, hidden[:, 0], slots.adapter)
        # Idle and scoring rows count as greedy, so that they never cause a branch to be taken.
        temperature = jnp.where(slots.alive & ~slots.scoring, slots.sampling.temperature, 0.0)
        settings = slots.sampling._replace(temperature=temperature)
        moved = slots.alive
        if decode_mode == "quick":
            # The key is folded with the position of the sampled token, hence + 1.
            token, logp, is_sampled = sample_quickly(logits, settings, slots.position + 1)
            slots = slots._replace(stalled=slots.stalled | (slots.alive & ~is_sampled))
            moved &= ~slots.stalled
        else:
            token, logp = sample(logits, settings, slots.position + 1)
        sampled = moved & ~slots.scoring
        scored = (moved & slots.scoring)[:, None]
        return _Carry(
            slots=_advance(slots, token, moved),
            pages=pages,
            tokens=carry.tokens.at[:, index].set(jnp.where(sampled, token, NO_TOKEN)),
            logps=carry.logps.at[:, index].set(logp),
            scores=jnp.where(scored, score(logits, slots.score_ids), carry.scores),
        )

    carry = _Carry(
        slots=slots,
        pages=state.pages,
        tokens=jnp.full((num_slots, num_steps), NO_TOKEN, jnp.int32),
        logps=jnp.zeros((num_slots, num_steps), jnp.float32),
        scores=jnp.zeros((num_slots, MAX_SCORE_IDS), jnp.float32),
    )
    if decode_mode == "stopping":
        _, carry = lax.while_loop(
            lambda state: (state[0] < num_steps) & jnp.any(state[1].slots.alive),
            lambda state: (state[0] + 1, step(*state)),
            (jnp.int32(0), carry),
        )
    else:
        carry = lax.fori_loop(0, num_steps, step, carry)
    # One int32 array, so that a single device-to-host transfer carries all results.
    bits = [lax.bitcast_convert_type(part, jnp.int32) for part in (carry.logps, carry.scores)]
    packed = jnp.concatenate([carry.tokens, *bits], axis=1)
    return _placed(config, State(carry.slots, carry.pages)), packed


def _taken_over(
    slots: Slots, table: jax.Array, line: jax.Array, line_table: jax.Array
) -> tuple[Slots, jax.Array]:
    """Assigns idle slots to the rows of the line.

    Returns:
        The rows, and [S, W] int32 page ids of the slots, after the assignment.
    """

    def of_shard(
        slots: Slots, table: jax.Array, line: jax.Array, line_table: jax.Array
    ) -> tuple[Slots, jax.Array]:
        is_free = ~slots.alive
        # The rank of each idle slot is the index of the row that it takes.
        place = jnp.cumsum(is_free) - 1
        takes = is_free & (place < jnp.sum(unpack(line)[0]))
        place = jnp.where(takes, place, 0)
        new = unpack(line[place], slots.adapter is not None)[1]
        return replaced(takes, new, slots), jnp.where(takes[:, None], line_table[place], table)

    if jax.sharding.get_abstract_mesh().size > 1:
        split = PartitionSpec(BATCH_AXES)
        of_shard = jax.shard_map(of_shard, in_specs=split, out_specs=split, check_vma=False)
    return of_shard(slots, table, line, line_table)


class _Carry(NamedTuple):
    """The carry of the decode loop: rows and pages, and results [S, num_steps] and [S, 8]."""

    slots: Slots
    pages: Any
    tokens: jax.Array
    logps: jax.Array
    scores: jax.Array


def _advance(slots: Slots, token: jax.Array, moved: jax.Array) -> Slots:
    """The rows after one step.

    Args:
        slots: the S slots.
        token: [S] int32, sampled tokens.
        moved: [S] bool, the slots in which a token was sampled or scored.
    """
    stopped = jnp.any(token[:, None] == slots.stop_ids, axis=-1) | slots.scoring
    remaining = jnp.where(stopped, 0, slots.remaining - 1)
    return slots._replace(
        token=jnp.where(moved, token, slots.token),
        position=slots.position + moved,
        remaining=jnp.where(moved, remaining, slots.remaining),
    )


def state_axes(config: ModelConfig, state: State) -> State:
    """The logical axis names of each array of a state (or of its shapes), as PartitionSpecs."""
    slots = jax.tree.map(
        lambda array: PartitionSpec("batch", *[None] * (array.ndim - 1)), state.slots
    )
    return State(slots, page_axes(config, state.pages))


def _placed(config: ModelConfig, state: State) -> State:
    """Constrains the sharding of a returned state.

    Each program returns it as it takes it, so that donation works and no call recompiles.
    """
    return jax.tree.map(nn.with_logical_constraint, state, state_axes(config, state))
