"""Fused parameters for serving: layers with joined kernels, one by one or stacked.

A layer has four matrix products, or five if its KV heads are not split over the mesh. With G =
heads / kv_heads its arrays are, in `config.dtype` (norms in the dtype of the parameters):

    attention_norm, mlp_norm [D]
    qkv [kv_heads, G + 2, head_dim, D]: each KV head with its queries, its key and its value
      else (`shard_kv_heads` False) query [heads, head_dim, D], key_value [kv_heads, 2, head_dim, D]
    out [D, heads * head_dim]   gate_up [2, F, D]   down [D, F]
      Qwen2: qkv_bias, or query_bias and key_value_bias: as the kernels, without D
      Qwen3: query_norm, key_norm [head_dim]
      with adapters: two arrays more for a kernel, see `fused_adapters.py`

Products contract the last axis, along which kernels may be quantized (`quantization.py`). Keys and
values are grouped with their queries so that splitting kv_heads over the mesh splits the joint
kernel into whole groups.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import A, B
from stair_jax.models.quantization import Quantized, quantize
from stair_jax.models.serving.token_rows import TokenRows
from stair_jax.models.transformer import Params
from stair_jax.parallel.mesh import use_mesh

Layer = dict[str, Any]

# The products of a layer; which of the first three there are follows from `shard_kv_heads`.
KERNELS = ("qkv", "query", "key_value", "out", "gate_up", "down")
# Dtypes of the kernels by setting; None means that of the model.
WEIGHTS = {"none": None, "fp8": "float8_e4m3fn", "int8": "int8"}
# Parameters of a layer that are converted together, since they are joined.
_GROUPS = (
    ("query", "key", "value"),
    ("query_bias", "key_bias", "value_bias"),
    ("query_norm",),
    ("key_norm",),
    ("out",),
    ("attention_norm",),
    ("gate", "up"),
    ("down",),
    ("mlp_norm",),
)


class FusedParams(NamedTuple):
    """Parameters as `paged_forward.forward` takes them.

    Attributes:
        embedding: [V, D], where V is `config.padded_vocab_size`.
        layers: a tuple with one dict of arrays per layer, each a buffer of its own; or, if stacked,
            one dict of arrays with a leading axis of layers.
        final_norm: [D].
        head: [V, D]; None if tied to the embedding.
        rows: in place of rows of both, of models with adapters; None: there are none.
    """

    embedding: jax.Array
    layers: tuple[Layer, ...] | Layer
    final_norm: jax.Array
    head: jax.Array | None
    rows: TokenRows | None = None


def fused_axes(config: ModelConfig, fused: FusedParams) -> FusedParams:
    """The logical axis names of each array of `fused` (or of its shapes), as PartitionSpecs."""
    if isinstance(fused.layers, tuple):
        layers: Any = tuple(layer_axes(config, layer) for layer in fused.layers)
    else:
        layers = jax.tree.map(
            lambda axes: PartitionSpec("layers", *axes), layer_axes(config, fused.layers)
        )
    vocabulary: Any = PartitionSpec("vocab", "embed")
    norm: Any = PartitionSpec(None)
    rows = jax.tree.map(lambda array: PartitionSpec(*[None] * array.ndim), fused.rows)
    head = None if fused.head is None else vocabulary
    return FusedParams(vocabulary, layers, norm, head, rows)


def layer_axes(config: ModelConfig, names: Layer) -> Layer:
    """The logical axis names of one layer's arrays, as PartitionSpecs.

    Args:
        config: the model config.
        names: the layer; where a kernel is `Quantized`, so are its axes.
    """
    kv_heads = "kv_heads" if config.shard_kv_heads else "kv_heads_whole"
    heads = {
        "qkv": (kv_heads, None, "head_dim"),
        "query": ("heads", "head_dim"),
        "key_value": (kv_heads, None, "head_dim"),
    }
    axes = {name: (*outputs, "embed") for name, outputs in heads.items()}
    axes |= {f"{name}_bias": outputs for name, outputs in heads.items()}
    axes |= {"out": ("embed", "heads"), "gate_up": (None, "mlp", "embed"), "down": ("embed", "mlp")}
    # Adapters are split as their kernels are, but not over fsdp: to gather them would cost more
    # time than they take memory.
    whole = {name: [axis if axis != "embed" else None for axis in axes[name]] for name in KERNELS}
    axes |= {name + A: (None, "lora_rank", own[-1]) for name, own in whole.items()}
    axes |= {name + B: (None, "lora_rank", *own[:-1]) for name, own in whole.items()}

    def of(name: str) -> Any:
        own = axes.get(name, (None,))
        values: Any = PartitionSpec(*own)
        # A scale per row: the same axes without the one that is contracted.
        scale: Any = PartitionSpec(*own[:-1])
        return Quantized(values, scale) if isinstance(names[name], Quantized) else values

    return {name: of(name) for name in names}


def fuse_params(
    config: ModelConfig,
    params: Params,
    *,
    weights: str = "none",
    stacked: bool,
    consume: bool = False,
) -> FusedParams:
    """Converts parameters to the layout of `FusedParams`, on the mesh that they are on.

    Embedding and head are shared with `params` if they have the dtype of the model.

    Args:
        config: the model config.
        params: as of `transformer.init_params`.
        weights: "none", "fp8" or "int8": what the kernels of the layers are quantized to.
        stacked: whether the layers stay stacked.
        consume: whether to delete each parameter once it is converted, so that only the largest one
            (the two largest, if stacked) is in memory twice.

    Raises:
        UserError: `weights` is unknown.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights {weights!r} is unknown: choose one of {', '.join(WEIGHTS)}")
    with mesh_of(params["embedding"]):
        embedding = _vocabulary(config, params["embedding"], consume)
        head = None
        if not config.tie_word_embeddings:
            head = _vocabulary(config, params["head"], consume)
        groups = [
            {name: params["layers"][name] for name in names}
            for names in _GROUPS
            if names[0] in params["layers"]
        ]
        convert = _stacked if stacked else _apart
        layers = convert(config, weights, groups, consume)
        return FusedParams(embedding, layers, _whole(params["final_norm"]), head)


def _stacked(config: ModelConfig, weights: str, groups: list[Layer], consume: bool) -> Layer:
    layers: Layer = {}
    for group in groups:
        layers |= _finished(_fuse(config, weights, True, group), group.values() if consume else ())
    return layers


def _apart(
    config: ModelConfig, weights: str, groups: list[Layer], consume: bool
) -> tuple[Layer, ...]:
    layers: tuple[Layer, ...] = tuple({} for _ in range(config.num_hidden_layers))
    for group in groups:
        # Parameters are unstacked one at a time, then those of each layer are joined: little is in
        # memory twice.
        parts = {
            name: _finished(unstack(stack), [stack] if consume else ())
            for name, stack in group.items()
        }
        for index, layer in enumerate(layers):
            own = {name: parts[name][index] for name in group}
            layer |= _finished(_fuse(config, weights, False, own), own.values())
    return layers


def _vocabulary(config: ModelConfig, array: jax.Array, consume: bool) -> jax.Array:
    if array.dtype == config.dtype:
        return array
    return _finished(_cast(array, config.dtype), [array] if consume else ())


def _finished(made: Any, used: Iterable[jax.Array]) -> Any:
    """Waits for `made` and deletes the arrays that it was made of.

    Without waiting, the next conversion would be dispatched while the old arrays are in use.
    """
    for array in used:
        # Under tracing (plans) there is nothing to wait for or to delete.
        if not isinstance(array, jax.core.Tracer):
            jax.block_until_ready(made)
            array.delete()
    return made


def mesh_of(array: jax.Array) -> AbstractContextManager[None]:
    """A context in which logical axes refer to the mesh that the array is on."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array.sharding, NamedSharding):
        return nullcontext()
    mesh = array.sharding.mesh
    return use_mesh(mesh) if isinstance(mesh, Mesh) and mesh.size > 1 else nullcontext()


@jax.jit
def _whole(array: jax.Array) -> jax.Array:
    return nn.with_logical_constraint(array, (None,))


@partial(jax.jit, static_argnums=1)
def _cast(array: jax.Array, dtype: str) -> jax.Array:
    return nn.with_logical_constraint(array.astype(dtype), ("vocab", "embed"))


@jax.jit
def unstack(stack: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(stack[index] for index in range(len(stack)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fuse(config: ModelConfig, weights: str, stacked: bool, group: Layer) -> Layer:
    """The served arrays of one of `_GROUPS`, for one layer or for all layers stacked."""
    fuse = partial(_fused, config, WEIGHTS[weights])
    fused = jax.vmap(fuse)(group) if stacked else fuse(group)
    axes = layer_axes(config, fused)
    if stacked:
        axes = jax.tree.map(lambda axes: PartitionSpec("layers", *axes), axes)
    return jax.tree.map(nn.with_logical_constraint, fused, axes)


def _fused(config: ModelConfig, dtype: str | None, group: Layer) -> Layer:
    if all(name.endswith("_norm") for name in group):
        return group
    group = {name: array.astype(config.dtype) for name, array in group.items()}
    if "query_bias" in group:
        return _joined(config, group, "_bias")
    kernels = join_kernels(config, group)
    if dtype is None:
        return kernels
    return {name: quantize(kernel, dtype) for name, kernel in kernels.items()}


def join_kernels(config: ModelConfig, group: Layer) -> Layer:
    """The fused kernels of a layer's kernels of one of `_GROUPS`; the contracted axis goes last."""
    if "query" in group:
        joined = _joined(config, group)
        return {name: jnp.moveaxis(kernel, 0, -1) for name, kernel in joined.items()}
    if "gate" in group:
        return {"gate_up": jnp.stack([group["gate"].T, group["up"].T])}
    return {name: kernel.reshape(-1, kernel.shape[-1]).T for name, kernel in group.items()}


def _joined(config: ModelConfig, group: Layer, suffix: str = "") -> Layer:
    """Joins queries [..., heads, head_dim], keys and values to one array, or to two."""
    query, key, value = (group[name + suffix] for name in ("query", "key", "value"))
    pair = jnp.stack([key, value], axis=-2)
    if not config.shard_kv_heads:
        return {"query" + suffix: query, "key_value" + suffix: pair}
    query = query.reshape(*key.shape[:-1], -1, config.head_dim)
    return {"qkv" + suffix: jnp.concatenate([query, pair], axis=-2)}
