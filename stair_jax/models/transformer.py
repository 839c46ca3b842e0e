"""The decoder in Flax Linen, for training: whole sequences, scanned layers.

Engines run the same parameters by `serving/paged_forward.py`. They are plain arrays; the leading
axis L of `layers` runs over the layers:

    embedding [V, D]    final_norm [D]    head [V, D] (untied models only)
    layers: attention_norm [L, D]   query [L, D, heads, head_dim]
            key, value [L, D, kv_heads, head_dim]   out [L, heads, head_dim, D]
            mlp_norm [L, D]   gate, up [L, D, F]   down [L, F, D]
      Qwen2: query_bias [L, heads, head_dim]   key_bias, value_bias [L, kv_heads, head_dim]
      Qwen3: query_norm, key_norm [L, head_dim]
      with adapters (`lora.py`): NAME_lora_a, NAME_lora_b of the kernels NAME; beside the layers
      embedding_rows, head_rows [K, D]
      with `base_weights` (`base_quantization.py`): NAME_values, NAME_scales in place of NAME

V is `config.padded_vocab_size`; the rows beyond `config.vocab_size` are zeros.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from stair_jax.models import base_quantization, lora, remat
from stair_jax.models.attention.backends import get_backend
from stair_jax.models.base_quantization import BlockQuantized
from stair_jax.models.config import ModelConfig
from stair_jax.models.embedding import look_up
from stair_jax.models.heads import OutputHead
from stair_jax.models.rotary import Rotation, rotary_embedding, rotate
from stair_jax.parallel import rules

Params = dict[str, Any]

_ACTIVATION_AXES = ("batch", "length", "activation_embed")
_HEAD_AXES = ("batch", "length", "activation_heads", "head_dim")


class Layer(nn.Module):
    """One pre-norm decoder layer: grouped-query attention, then a gated MLP."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        rotation: Rotation,
        segment_ids: jax.Array | None,
        ends: jax.Array | None,
    ) -> tuple[jax.Array, None]:
        """Maps hidden states [B, T, D] to hidden states [B, T, D].

        Returns:
            The hidden states, and None, as `nn.scan` expects a carry and an output.
        """
        # Names that the policies of `remat.py` refer to; without remat they have no effect.
        hidden = checkpoint_name(hidden, remat.INPUT)
        normed = norm(self.config, hidden, self._scale("attention_norm"))
        attended = self._attend(normed, rotation, segment_ids, ends)
        hidden = nn.with_logical_constraint(hidden + attended, _ACTIVATION_AXES)
        hidden = checkpoint_name(hidden, remat.MIDDLE)
        normed = norm(self.config, hidden, self._scale("mlp_norm"))
        return nn.with_logical_constraint(hidden + self._mlp(normed), _ACTIVATION_AXES), None

    def _attend(
        self,
        normed: jax.Array,
        rotation: Rotation,
        segment_ids: jax.Array | None,
        ends: jax.Array | None,
    ) -> jax.Array:
        config = self.config
        attend = get_backend(config.attention, config.row_sequences)
        kv_axis = "activation_kv_heads" if config.shard_kv_heads else "activation_kv_heads_whole"
        kv_axes = ("batch", "length", kv_axis, "head_dim")
        queries = self._project("query", normed, rotation)
        queries = nn.with_logical_constraint(queries, _HEAD_AXES)
        keys = nn.with_logical_constraint(self._project("key", normed, rotation), kv_axes)
        values = nn.with_logical_constraint(self._project("value", normed), kv_axes)
        queries = checkpoint_name(queries, remat.QUERY)
        keys, values = checkpoint_name(keys, remat.KEY), checkpoint_name(values, remat.VALUE)
        # `init` traces one row, which cannot be split over a mesh; attention has no parameters.
        attended = queries
        if not self.is_initializing():
            attended = attend(queries, keys, values, segment_ids, ends)
        attended = nn.with_logical_constraint(attended, _HEAD_AXES)
        shape = (config.num_attention_heads, config.head_dim, config.hidden_size)
        return self._product(
            "out", "btnh,nhd->btd", attended, ("heads", "head_dim", "embed"), shape
        )

    def _project(self, name: str, normed: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """Projects to queries, keys or values.

        Args:
            name: "query", "key" or "value".
            normed: [B, T, D].
            rotation: rotary cosines and sines; None for values, which are neither normalised nor
                rotated.

        Returns:
            [B, T, heads or kv_heads, head_dim].
        """
        config = self.config
        heads, axis = config.num_attention_heads, "heads"
        if name != "query":
            heads = config.num_key_value_heads
            axis = "kv_heads" if config.shard_kv_heads else "kv_heads_whole"
        axes, shape = ("embed", axis, "head_dim"), (config.hidden_size, heads, config.head_dim)
        projected = self._product(name, "btd,dnh->btnh", normed, axes, shape)
        if config.qkv_bias:
            bias = _param(self, f"{name}_bias", nn.initializers.zeros, axes[1:], shape[1:])
            projected = projected + bias.astype(config.dtype)
        if rotation is None:
            return projected
        if config.qk_norm:
            scale = _param(self, f"{name}_norm", _norm_init(config), axes[2:], shape[2:])
            projected = norm(config, projected, scale)
        return rotate(projected, rotation)

    def _mlp(self, normed: jax.Array) -> jax.Array:
        embed, mlp = self.config.hidden_size, self.config.intermediate_size
        # One axis of tokens: with two, XLA's CPU backend takes a slow path for the gradients.
        flat = normed.reshape(-1, embed)
        gate = self._product("gate", "td,df->tf", flat, ("embed", "mlp"), (embed, mlp))
        up = self._product("up", "td,df->tf", flat, ("embed", "mlp"), (embed, mlp))
        gated = checkpoint_name(gate, remat.GATE)
        inner = activate(self.config, gated) * checkpoint_name(up, remat.UP)
        inner = nn.with_logical_constraint(inner, ("batch", "activation_mlp"))
        down = self._product("down", "tf,fd->td", inner, ("mlp", "embed"), (mlp, embed))
        return down.reshape(normed.shape)

    def _product(
        self,
        name: str,
        spec: str,
        inputs: jax.Array,
        axes: tuple[str, ...],
        shape: tuple[int, ...],
    ) -> jax.Array:
        """The product of the inputs with a kernel, and with its adapter where it has one.

        Args:
            name: of the kernel.
            spec: the product, for einsum.
            inputs: what is multiplied.
            axes: logical axes of the kernel.
            shape: of the kernel.
        """
        kind = self.config.base_weights
        if kind == "none":
            product = jnp.einsum(spec, inputs, self._kernel(name, axes, shape))
        else:
            kernel, axis = self._quantized(name, axes, shape), base_quantization.AXES[name]
            product = base_quantization.product(kind, spec, inputs, kernel, axis)
        adapters = self.config.lora
        if adapters is None:
            return product
        if name not in adapters.targets:
            return checkpoint_name(product, remat.PRODUCT)
        count, rank = lora.KERNELS[name], adapters.rank
        # As in PEFT: A uniform in +-1/sqrt(inputs), B zero, so that the model starts as the base.
        uniform = nn.initializers.variance_scaling(
            1 / 3, "fan_in", "uniform", in_axis=tuple(range(count)), out_axis=count
        )
        a, b = (
            _param(self, name + half, init, half_axes, half_shape, adapters.dtype)
            for half, init, half_axes, half_shape in (
                (lora.A, uniform, (*axes[:count], "lora_rank"), (*shape[:count], rank)),
                (
                    lora.B,
                    nn.initializers.zeros,
                    ("lora_rank", *axes[count:]),
                    (rank, *shape[count:]),
                ),
            )
        )
        product = product + lora.product(inputs, a, b, adapters.scale)
        return checkpoint_name(product, remat.PRODUCT)

    def _kernel(self, name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
        # Parameters keep `param_dtype` for the optimizer; products run in `dtype`.
        init = nn.initializers.normal(self.config.initializer_range)
        return _param(self, name, init, axes, shape).astype(self.config.dtype)

    def _quantized(
        self, name: str, axes: tuple[str, ...], shape: tuple[int, ...]
    ) -> BlockQuantized:
        kind, axis = self.config.base_weights, base_quantization.AXES[name]
        values, scales = base_quantization.quantized_shapes(kind, shape, axis)

        def draw(key: jax.Array, *_: Any) -> jax.Array:
            return base_quantization.random_values(kind, key, shape, axis)

        dtype = base_quantization.values_dtype(kind)
        scale = base_quantization.random_scale(kind, self.config.initializer_range)
        constant = nn.initializers.constant(scale)
        parts = (
            _param(self, name + base_quantization.VALUES, draw, axes, values, dtype),
            _param(self, name + base_quantization.SCALES, constant, axes, scales, "float32"),
        )
        # Gathered over `fsdp` as they are, in 4 or 8 bits, and not when they are dequantized.
        whole = tuple(None if axis == "embed" else axis for axis in axes)
        return BlockQuantized(*(nn.with_logical_constraint(part, whole) for part in parts))

    def _scale(self, name: str) -> jax.Array:
        init = _norm_init(self.config)
        return _param(self, name, init, ("embed",), (self.config.hidden_size,))


class Transformer(nn.Module):
    """The decoder from token ids to the hidden states after the last norm."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        ends: jax.Array | None = None,
    ) -> jax.Array:
        """Computes hidden states [B, T, D].

        Args:
            tokens: [B, T] int32 token ids.
            positions: [B, T] int32, for the rotary embedding.
            segment_ids: [B, T] int32, packed sequences: a token attends to itself and to earlier
                tokens of its row with the same id. None means one segment per row.
            ends: [B, T] int32, for rows that hold trees in preorder: the first position behind the
                subtree of each token's node, which restricts attention to the token's own path
                (`attention/mask.py`). None means no trees.
        """
        config = self.config
        config.check_length(tokens.shape[1], "a row", "its length")
        shape = (config.padded_vocab_size, config.hidden_size)
        init = _vocabulary_init(config)
        embedding = _param(self, "embedding", init, ("vocab", "embed"), shape)
        final_norm = _param(self, "final_norm", _norm_init(config), ("embed",), shape[1:])
        if self.is_initializing() and not config.tie_word_embeddings:
            # Created here but applied outside (`output_embedding`), so that [B, T, V] is never
            # needed.
            _param(self, "head", init, ("vocab", "embed"), shape)

        if config.row_sequences == 1 and ends is None:
            segment_ids = None  # padding comes last, where causal attention hides it from all else
        hidden = look_up(embedding, tokens, config.dtype)
        if config.lora and config.lora.token_ids:
            hidden = self._with_rows(config.lora, hidden, tokens)
        hidden = scale_embedded(config, hidden)
        hidden = nn.with_logical_constraint(hidden, _ACTIVATION_AXES)
        rotation = rotary_embedding(
            positions, config.head_dim, config.rope_theta, config.rope_scaling
        )
        hidden, _ = _scanned_layers(config)(hidden, rotation, segment_ids, ends)
        return norm(config, hidden, final_norm)

    def _with_rows(self, adapters: lora.Lora, embedded: jax.Array, tokens: jax.Array) -> jax.Array:
        """Embedded tokens, with the rows of those that have their own."""
        axes, shape = (None, "embed"), (len(adapters.token_ids), self.config.hidden_size)
        own = partial(_param, self, init=nn.initializers.zeros, axes=axes, shape=shape)
        if self.is_initializing() and not self.config.tie_word_embeddings:
            own("head" + lora.ROWS, dtype=adapters.dtype)  # applied outside, as the head
        rows = own("embedding" + lora.ROWS, dtype=adapters.dtype)
        return lora.with_rows(embedded, tokens, adapters.token_ids, rows)


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Creates random parameters as plain arrays in `config.param_dtype`.

    Kernels and embeddings are normal with `config.initializer_range`, norms one (Gemma: zero, to
    which it adds one), biases zero.
    """
    return nn.meta.unbox(_boxed_params(config, key))


def new_adapters(config: ModelConfig, mesh: Mesh, seed: int) -> Params:
    """The adapters of a model, {"layers": {...}}, with which it is the same as without them.

    The rows of tokens are not among them: see `lora.own_rows`.
    """
    return _maker_of_adapters(config, mesh)(jax.random.key(seed))


@lru_cache(maxsize=8)
def _maker_of_adapters(config: ModelConfig, mesh: Mesh) -> Callable[[jax.Array], Params]:
    """The compiled function of a key: stages after one another make adapters of the same shapes."""
    shardings = rules.shardings(_adapters_of_layers(logical_axes(config)), mesh)

    def make(key: jax.Array) -> Params:
        return _adapters_of_layers(init_params(config, key))

    return jax.jit(make, out_shardings=shardings)


def _adapters_of_layers(params: Params) -> Params:
    return {"layers": lora.split(params)[1]["layers"]}


def logical_axes(config: ModelConfig) -> Params:
    """The logical axis names of each parameter, as a tree of PartitionSpecs like `init_params`.

    Parameters use vocab, embed, heads, kv_heads (kv_heads_whole if `shard_kv_heads` is False),
    head_dim, mlp and layers. Activations use batch, length, activation_embed, activation_heads,
    activation_kv_heads (or activation_kv_heads_whole), activation_mlp and head_dim.
    `parallel/rules.py` maps them to mesh axes.
    """
    return nn.get_partition_spec(jax.eval_shape(partial(_boxed_params, config), jax.random.key(0)))


def apply(
    config: ModelConfig,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    ends: jax.Array | None = None,
) -> jax.Array:
    """`Transformer.__call__` as a function of plain parameters: hidden states [B, T, D]."""
    model: Any = Transformer(config)
    return model.apply({"params": params}, tokens, positions, segment_ids, ends)


def narrowed(config: ModelConfig, params: Params) -> Params:
    """Parameters whose kernels are in the dtype of the products, for a pass with gradients.

    The loop over the layers would cast each kernel twice, in the forward and in the backward pass,
    and widen its gradient before it is written. This way gradients leave the loop as the products
    made them, and are widened where they are used: the memory of this copy is that of the half that
    they no longer take. Frozen kernels have no gradient, and are cast in the loop.
    """
    if config.lora is not None:
        return params
    layers = {
        name: leaf.astype(config.dtype) if name in lora.KERNELS else leaf
        for name, leaf in params["layers"].items()
    }
    return params | {"layers": layers}


def output_embedding(params: Params, config: ModelConfig) -> jax.Array:
    """The matrix [V, D] whose products with hidden states are the logits, in `param_dtype`.

    The logits of its padding rows have to be masked: see `heads.mask_padding`.
    """
    return params["embedding" if config.tie_word_embeddings else "head"]


def output_head(params: Params, config: ModelConfig) -> OutputHead:
    """`output_embedding`, with rows of their own for the tokens that have them."""
    table = output_embedding(params, config)
    if config.lora is None or not config.lora.token_ids:
        return OutputHead(table)
    name = "embedding" if config.tie_word_embeddings else "head"
    return OutputHead(table, params[name + lora.ROWS], config.lora.token_ids)


def scale_embedded(config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Rows of the embedding as hidden states; Gemma multiplies them, by a factor rounded first."""
    if config.embedding_scale == 1:
        return hidden
    return hidden * jnp.asarray(config.embedding_scale, hidden.dtype)


def activate(config: ModelConfig, gated: jax.Array) -> jax.Array:
    """The activation of the MLP's gate."""
    return nn.gelu(gated, approximate=True) if config.has_gelu else nn.silu(gated)


def norm(config: ModelConfig, hidden: jax.Array, scale: jax.Array) -> jax.Array:
    """The norm of the model's family, see `rms_norm`."""
    return rms_norm(hidden, scale, config.rms_norm_eps, config.norm_offset)


def rms_norm(hidden: jax.Array, scale: jax.Array, eps: float, offset: float = 0.0) -> jax.Array:
    """Root-mean-square norm over the last axis.

    Computed in float32, as the mean of squares loses too much in 16 bits.

    Args:
        hidden: [..., D], any floating dtype, which the result has too.
        scale: [D].
        eps: added to the mean of squares.
        offset: added to the scale, in float32.
    """
    wide = hidden.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    factor = scale.astype(jnp.float32)
    if offset:
        factor = factor + offset
    return (wide * factor).astype(hidden.dtype)


def _param(
    module: nn.Module,
    name: str,
    init: nn.initializers.Initializer,
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    dtype: str = "",
) -> jax.Array:
    config: ModelConfig = module.config
    # Plain parameters of full rank: a partitioned kernel of `nn.DenseGeneral` with more than two
    # axes fails under `jax.set_mesh`.
    partitioned: Any = nn.with_logical_partitioning(init, axes)
    return module.param(name, partitioned, shape, jnp.dtype(dtype or config.param_dtype))


def _norm_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Scales with which norms multiply by one."""
    return nn.initializers.zeros if config.norm_offset else nn.initializers.ones


def _vocabulary_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Normal rows for the tokens, zeros for the padding; the draws do not depend on the padding."""
    normal = nn.initializers.normal(config.initializer_range)
    padding = config.padded_vocab_size - config.vocab_size

    def init(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
        rows = normal(key, (config.vocab_size, *shape[1:]), dtype)
        return jnp.pad(rows, ((0, padding), (0, 0)))

    return init


def _scanned_layers(config: ModelConfig) -> Any:
    layer: Any = Layer
    if config.remat != "none":
        # `prevent_cse` is not needed inside of a loop, and its barriers would cost speed.
        policy = remat.get_policy(config.remat, config.lora is not None)
        layer = nn.remat(Layer, policy=policy, prevent_cse=config.unroll)
    # One layer is traced, however many there are; and compiled, unless the loop is unrolled.
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,  # rotation, segments and ends are the same for all layers
        length=config.num_hidden_layers,
        unroll=config.num_hidden_layers if config.unroll else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},  # names the leading axis of the parameters
    )
    return scanned(config, name="layers")


@partial(jax.jit, static_argnums=0)
def _boxed_params(config: ModelConfig, key: jax.Array) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens, tokens)["params"]
