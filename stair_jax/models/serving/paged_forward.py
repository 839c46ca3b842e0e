"""The forward pass for serving: the layers of `fused_params.py` over a paged KV cache."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import mask_padding
from stair_jax.models.lora import A, B
from stair_jax.models.paged.view import PagedBackend, View
from stair_jax.models.quantization import matmul
from stair_jax.models.rotary import Rotation, rotary_embedding, rotate
from stair_jax.models.serving.fused_adapters import adapted, rows_of_adapters
from stair_jax.models.serving.fused_params import FusedParams, Layer
from stair_jax.models.serving.token_rows import embed_own, own_logits
from stair_jax.models.transformer import activate, norm, scale_embedded
from stair_jax.parallel.rules import BATCH_AXES

__all__ = [
    "forward",
    "logits",
]

_ACTIVATION_AXES = ("batch", "length", "activation_embed")
_HEAD_AXES = ("batch", "length", "activation_heads", "head_dim")


def forward(
    config: ModelConfig,
    fused: FusedParams,
    backend: PagedBackend,
    tokens: jax.Array,
    pages: Any,
    view: View,
    adapter: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Runs the decoder on new tokens, and writes their keys and values into the cache.

    Args:
        config: the model config.
        fused: the parameters; stacked if the backend is.
        backend: the attention backend.
        tokens: [B, T] int32 token ids, placed by `view`.
        pages: pages of all layers if the backend is stacked, else a tuple of those of each layer.
        view: where the tokens belong.
        adapter: [B] int32, the adapter of each row; None: `fused` has no adapters.

    Returns:
        Hidden states [B, T, D] after the last norm, and the pages.
    """
    own = None if adapter is None else rows_of_adapters(fused, adapter, tokens.shape[1])
    positions = view.start[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)
    rotation = rotary_embedding(positions, config.head_dim, config.rope_theta, config.rope_scaling)
    # Columns gathered over fsdp: if they stayed split, XLA would look up the tokens of all devices
    # on each device.
    table = nn.with_logical_constraint(fused.embedding, ("vocab", "activation_embed"))
    embedded = jnp.take(table, tokens, axis=0)
    if own is not None and fused.rows is not None:
        embedded = embed_own(embedded, tokens, fused.rows, own)
    hidden = scale_embedded(config, embedded)
    hidden = nn.with_logical_constraint(hidden, _ACTIVATION_AXES)
    # Unrolled for backends with an array per layer (GPUs): slices out of stacked weights inside of
    # a step would be copied.
    if isinstance(fused.layers, tuple):
        written = []
        for layer, cache in zip(fused.layers, pages, strict=True):
            hidden, cache = _layer(config, backend, layer, hidden, rotation, cache, view, own)
            written.append(cache)
        pages = tuple(written)
    else:
        hidden, pages = _stacked_layers(
            config, backend, fused.layers, hidden, rotation, pages, view, own
        )
    return norm(config, hidden, fused.final_norm), pages


def logits(
    config: ModelConfig, fused: FusedParams, hidden: jax.Array, adapter: jax.Array | None = None
) -> jax.Array:
    """Logits [B, V] float32 of hidden states [B, D]; -inf for vocabulary padding.

    Args:
        config: the model config.
        fused: the parameters.
        hidden: the hidden states.
        adapter: as for `forward`.
    """
    head = fused.embedding if fused.head is None else fused.head
    found = jnp.einsum("bd,vd->bv", hidden, head, preferred_element_type=jnp.float32)
    found = nn.with_logical_constraint(found, ("batch", "activation_vocab"))
    if adapter is not None and fused.rows is not None:
        found = own_logits(found, hidden, fused.rows, rows_of_adapters(fused, adapter, 1))
    return mask_padding(found, config.vocab_size)


def _stacked_layers(
    config: ModelConfig,
    backend: PagedBackend,
    layers: Layer,
    hidden: jax.Array,
    rotation: Rotation,
    pages: Any,
    view: View,
    adapters: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """All layers in one loop.

    A `fori_loop`, whose carry is updated in place: pages as inputs and outputs of a `scan` would be
    in memory twice.
    """
    # Page ids are local to a device: the pages per layer are those of its shard.
    num_pages = jax.tree.leaves(pages)[0].shape[0] // _batch_shards()
    stride = num_pages // config.num_hidden_layers

    def body(index: jax.Array, carry: tuple) -> tuple:
        layer = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, 0, False), layers)
        own = view._replace(base=view.base + index * stride)
        return _layer(config, backend, layer, carry[0], rotation, carry[1], own, adapters)

    return lax.fori_loop(0, config.num_hidden_layers, body, (hidden, pages))


def _batch_shards() -> int:
    """Number of data-parallel parts of the mesh in use."""
    mesh = jax.sharding.get_abstract_mesh()
    shards = 1
    for axis in BATCH_AXES:
        shards *= mesh.shape.get(axis, 1)
    return shards


def _layer(
    config: ModelConfig,
    backend: PagedBackend,
    layer: Layer,
    hidden: jax.Array,
    rotation: Rotation,
    pages: Any,
    view: View,
    adapters: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """One pre-norm layer on hidden[B, T, D]: grouped-query attention, then a gated MLP."""
    shape = hidden.shape
    normed = norm(config, hidden, layer["attention_norm"])
    query, key, value = _project(config, layer, normed, rotation, adapters)
    attended, pages = backend.attend(query, key, value, pages, view)
    attended = nn.with_logical_constraint(attended, _HEAD_AXES)
    # Tokens in one axis, as `matmul` takes rows.
    flat = attended.reshape(shape[0] * shape[1], -1)
    hidden = hidden + _product(layer, "out", flat, adapters).reshape(shape)
    hidden = nn.with_logical_constraint(hidden, _ACTIVATION_AXES)
    flat = norm(config, hidden, layer["mlp_norm"]).reshape(-1, config.hidden_size)
    wide = _product(layer, "gate_up", flat, adapters)
    inner = activate(config, wide[:, 0]) * wide[:, 1]
    inner = nn.with_logical_constraint(inner, ("batch", "activation_mlp"))
    hidden = hidden + _product(layer, "down", inner, adapters).reshape(shape)
    return nn.with_logical_constraint(hidden, _ACTIVATION_AXES), pages


def _project(
    config: ModelConfig,
    layer: Layer,
    normed: jax.Array,
    rotation: Rotation,
    adapters: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Projects to queries [B, T, heads, head_dim], and keys and values [B, T, kv_heads, head_dim].

    Queries and keys are normalised (Qwen3) and rotated.
    """
    kv_axis = "activation_kv_heads" if config.shard_kv_heads else "activation_kv_heads_whole"
    kv_axes = ("batch", "length", kv_axis, "head_dim")
    if config.shard_kv_heads:
        joint = _heads(layer, "qkv", normed, adapters)
        joint = nn.with_logical_constraint(joint, (*kv_axes[:3], None, "head_dim"))
        query, pair = joint[..., :-2, :], joint[..., -2:, :]
        query = query.reshape(*normed.shape[:2], -1, config.head_dim)
    else:
        query, pair = (_heads(layer, name, normed, adapters) for name in ("query", "key_value"))
    key, value = pair[..., 0, :], pair[..., 1, :]
    if config.qk_norm:
        query = norm(config, query, layer["query_norm"])
        key = norm(config, key, layer["key_norm"])
    return (
        nn.with_logical_constraint(rotate(query, rotation), _HEAD_AXES),
        nn.with_logical_constraint(rotate(key, rotation), kv_axes),
        nn.with_logical_constraint(value, kv_axes),
    )


def _heads(layer: Layer, name: str, normed: jax.Array, adapters: jax.Array | None) -> jax.Array:
    """Applies a kernel and its bias, if any, to normed[B, T, D]; the result is [B, T, ...]."""
    batch, length, embed = normed.shape
    projected = _product(layer, name, normed.reshape(batch * length, embed), adapters)
    if f"{name}_bias" in layer:
        projected = projected + layer[f"{name}_bias"]
    return projected.reshape(batch, length, *projected.shape[1:])


def _product(layer: Layer, name: str, rows: jax.Array, adapters: jax.Array | None) -> jax.Array:
    """The product of rows[M, K] with a kernel and with the adapters of each row: [M, ...].

    Args:
        layer: with the kernel.
        name: of the kernel.
        rows: the rows.
        adapters: see `rows_of_adapters`; None: there are none.
    """
    product = matmul(rows, layer[name])
    if adapters is None or name + A not in layer:
        return product
    return product + adapted(rows, layer[name + A], layer[name + B], adapters)
