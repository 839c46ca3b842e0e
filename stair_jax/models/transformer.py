"""The decoder in Linen: Llama's layers, scanned for training and unrolled over a cache.

Parameters (plain arrays; the leading axis of `layers` runs over the layers):

    embedding [V, D]    final_norm [D]    head [V, D] (untied models only)
    layers: attention_norm [L, D]   query [L, D, heads, head_dim]
            key, value [L, D, kv_heads, head_dim]   out [L, heads, head_dim, D]
            mlp_norm [L, D]   gate, up [L, D, F]   down [L, F, D]
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stair_jax.models.attention import get_backend
from stair_jax.models.cache import Cache, write
from stair_jax.models.config import ModelConfig

Params = dict[str, Any]
Rotation = tuple[jax.Array, jax.Array]

_ACTIVATION_AXES = ("batch", "length", "activation_embed")


class Layer(nn.Module):
    """One pre-norm layer: grouped-query attention, then SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        rotation: Rotation,
        segment_ids: jax.Array | None,
        positions: jax.Array,
        slots: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Maps `hidden[B, T, D]`; `slots` are this layer's keys and values in a cache."""
        config = self.config
        embed, mlp = config.hidden_size, config.intermediate_size
        query_shape = (embed, config.num_attention_heads, config.head_dim)
        key_shape = (embed, config.num_key_value_heads, config.head_dim)
        backend = get_backend(config.attention)

        normed = rms_norm(hidden, self._scale("attention_norm"), config.rms_norm_eps)
        query = self._kernel("query", ("embed", "heads", "head_dim"), query_shape)
        key = self._kernel("key", ("embed", "kv_heads", "head_dim"), key_shape)
        value = self._kernel("value", ("embed", "kv_heads", "head_dim"), key_shape)
        out = self._kernel("out", ("heads", "head_dim", "embed"), (*query_shape[1:], embed))
        queries = rotate(jnp.einsum("btd,dnh->btnh", normed, query), rotation)
        keys = rotate(jnp.einsum("btd,dnh->btnh", normed, key), rotation)
        values = jnp.einsum("btd,dnh->btnh", normed, value)
        if slots is None:
            attended = backend.causal(queries, keys, values, segment_ids)
        else:
            slots = (write(slots[0], keys, positions), write(slots[1], values, positions))
            attended = backend.cached(queries, *slots, positions)
        hidden = hidden + jnp.einsum("btnh,nhd->btd", attended, out)
        hidden = nn.with_logical_constraint(hidden, _ACTIVATION_AXES)

        normed = rms_norm(hidden, self._scale("mlp_norm"), config.rms_norm_eps)
        gate = self._kernel("gate", ("embed", "mlp"), (embed, mlp))
        up = self._kernel("up", ("embed", "mlp"), (embed, mlp))
        down = self._kernel("down", ("mlp", "embed"), (mlp, embed))
        # Tokens in one axis: with two, XLA's CPU backend takes a slow path for the gradients.
        flat = normed.reshape(-1, embed)
        hidden = hidden + ((nn.silu(flat @ gate) * (flat @ up)) @ down).reshape(hidden.shape)
        return nn.with_logical_constraint(hidden, _ACTIVATION_AXES), slots

    def _kernel(self, name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
        init = nn.initializers.normal(self.config.initializer_range)
        return _param(self, name, init, axes, shape).astype(self.config.dtype)

    def _scale(self, name: str) -> jax.Array:
        return _param(self, name, nn.initializers.ones, ("embed",), (self.config.hidden_size,))


class Transformer(nn.Module):
    """Decoder from token ids to the hidden states after the last norm."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states `[B, T, D]` of `tokens[B, T]`, and the cache with them written into it.

        Without a cache, attention is causal within equal `segment_ids[B, T]` (None: one segment a
        row). With one, keys and values are written at `positions[B, T]` (those beyond its length
        nowhere), a query sees the slots up to its own position, and `segment_ids` play no part.
        """
        config = self.config
        shape = (config.vocab_size, config.hidden_size)
        init = nn.initializers.normal(config.initializer_range)
        embedding = _param(self, "embedding", init, ("vocab", "embed"), shape)
        final_norm = _param(self, "final_norm", nn.initializers.ones, ("embed",), shape[1:])
        if self.is_initializing() and not config.tie_word_embeddings:
            # Applied outside (`output_embedding`), so that [B, T, V] need never exist.
            _param(self, "head", init, ("vocab", "embed"), shape)

        hidden = jnp.take(embedding, tokens, axis=0).astype(config.dtype)
        hidden = nn.with_logical_constraint(hidden, _ACTIVATION_AXES)
        rotation = rotary_embedding(positions, config)
        if cache is None:
            hidden, _ = _scanned_layers(config)(hidden, rotation, segment_ids, positions)
        else:
            layers = nn.meta.unbox(self.variables["params"]["layers"])
            hidden, cache = _cached_layers(config, layers, hidden, rotation, positions, cache)
        return rms_norm(hidden, final_norm, config.rms_norm_eps), cache


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters, plain arrays: normal with `initializer_range`, norms at one."""
    return nn.meta.unbox(_boxed_params(config, key))


def logical_axes(config: ModelConfig) -> Params:
    """A PartitionSpec of logical axis names for each parameter, in the tree of `init_params`.

    The names are vocab, embed, heads, kv_heads, head_dim, mlp, layers; activations have batch,
    length, activation_embed.
    """
    return nn.get_partition_spec(jax.eval_shape(partial(_boxed_params, config), jax.random.key(0)))


def apply(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    cache: Cache | None = None,
) -> tuple[jax.Array, Cache | None]:
    """`Transformer.__call__` as a function of plain parameters."""
    model: Any = Transformer(config)
    return model.apply({"params": params}, tokens, positions, segment_ids, cache)


def output_embedding(params: Params, config: ModelConfig) -> jax.Array:
    """The matrix `[V, D]` whose products with hidden states are the logits, in `param_dtype`."""
    return params["embedding" if config.tie_word_embeddings else "head"]


def rms_norm(hidden: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, in float32; keeps the dtype of `hidden`."""
    wide = hidden.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale.astype(jnp.float32)).astype(hidden.dtype)


def rotary_embedding(positions: jax.Array, config: ModelConfig) -> Rotation:
    """Cosines and sines `[B, T, 1, head_dim / 2]` of the angles at `positions[B, T]`, float32."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    angles = positions[..., None, None].astype(jnp.float32) / config.rope_theta**exponents
    return jnp.cos(angles), jnp.sin(angles)


def rotate(heads: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotates `heads[B, T, N, H]`; component i pairs with i + H/2, as in Hugging Face."""
    cos, sin = rotation
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(heads.dtype)


def _param(
    module: nn.Module,
    name: str,
    init: nn.initializers.Initializer,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    config: ModelConfig = module.config
    partitioned: Any = nn.with_logical_partitioning(init, axes)
    return module.param(name, partitioned, shape, jnp.dtype(config.param_dtype))


def _scanned_layers(config: ModelConfig) -> nn.Module:
    layer: Any = Layer
    if config.remat != "none":
        policies = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
        layer = nn.remat(Layer, policy=policies[config.remat], prevent_cse=False)
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=config.num_hidden_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scanned(config, name="layers")


def _cached_layers(
    config: ModelConfig,
    layers: Params,
    hidden: jax.Array,
    rotation: Rotation,
    positions: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    layer: Any = Layer(config, parent=None)
    written = []
    for index, slots in enumerate(zip(*cache, strict=True)):
        params = jax.tree.map(lambda stacked, i=index: stacked[i], layers)
        hidden, slots = layer.apply({"params": params}, hidden, rotation, None, positions, slots)
        written.append(slots)
    keys, values = zip(*written, strict=True)
    return hidden, Cache(keys, values)


@partial(jax.jit, static_argnums=0)
def _boxed_params(config: ModelConfig, key: jax.Array) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens, tokens)["params"]
