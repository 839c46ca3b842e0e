"""Parameters as an engine takes them: layers with fused kernels, apart from each other or stacked.

A layer has four products, or five where KV heads are not split over a mesh. Its arrays are, with
G = heads / kv_heads and in `config.dtype` (norms in the dtype of the parameters):

    attention_norm, mlp_norm [D]
    qkv [kv_heads, G + 2, head_dim, D]: each KV head with its queries, its key and its value
      else (`shard_kv_heads` False) query [heads, head_dim, D], key_value [kv_heads, 2, head_dim, D]
    out [D, heads * head_dim]   gate_up [2, F, D]   down [D, F]
      Qwen2: qkv_bias, or query_bias and key_value_bias: as the kernels, without D
      Qwen3: query_norm, key_norm [head_dim]

Products run over the last axis; kernels may be quantized along it.
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
from stair_jax.models.quantization import Quantized, quantize
from stair_jax.models.transformer import Params
from stair_jax.parallel.mesh import use_mesh

Layer = dict[str, Any]

# The dtype of the kernels by the setting's name; None: that of the model.
WEIGHTS = {"none": None, "fp8": "float8_e4m3fn", "int8": "int8"}
# Parameters of a layer that are converted together.
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


class Served(NamedTuple):
    """Parameters as `forward` takes them.

    Attributes:
        embedding: [V, D], where V is `config.padded_vocab_size`.
        layers: one dict a layer, of arrays that are buffers of their own; or, stacked, one dict of
            arrays with a leading axis of layers.
        final_norm: [D].
        head: [V, D]; None where it is tied to the embedding.
    """

    embedding: jax.Array
    layers: tuple[Layer, ...] | Layer
    final_norm: jax.Array
    head: jax.Array | None


def served_axes(config: ModelConfig, served: Served) -> Served:
    """A PartitionSpec of logical axis names for each array of `served`, or of its shapes."""
    if isinstance(served.layers, tuple):
        layers: Any = tuple(layer_axes(config, layer) for layer in served.layers)
    else:
        layers = jax.tree.map(
            lambda axes: PartitionSpec("layers", *axes), layer_axes(config, served.layers)
        )
    vocabulary: Any = PartitionSpec("vocab", "embed")
    norm: Any = PartitionSpec(None)
    return Served(vocabulary, layers, norm, None if served.head is None else vocabulary)


def layer_axes(config: ModelConfig, names: Layer) -> Layer:
    """The axes of one layer's arrays, quantized where those in `names` are; norms are whole."""
    kv_heads = "kv_heads" if config.shard_kv_heads else "kv_heads_whole"
    heads = {
        "qkv": (kv_heads, None, "head_dim"),
        "query": ("heads", "head_dim"),
        "key_value": (kv_heads, None, "head_dim"),
    }
    axes = {name: (*outputs, "embed") for name, outputs in heads.items()}
    axes |= {f"{name}_bias": outputs for name, outputs in heads.items()}
    axes |= {"out": ("embed", "heads"), "gate_up": (None, "mlp", "embed"), "down": ("embed", "mlp")}

    def of(name: str) -> Any:
        whole = axes.get(name, (None,))
        values: Any = PartitionSpec(*whole)
        scale: Any = PartitionSpec(*whole[:-1])
        return Quantized(values, scale) if isinstance(names[name], Quantized) else values

    return {name: of(name) for name in names}


def serve(
    config: ModelConfig,
    params: Params,
    *,
    weights: str = "none",
    stacked: bool,
    consume: bool = False,
) -> Served:
    """The parameters in the layout of `Served`, on the mesh that they are on.

    Embedding and head are shared with `params` where they have the dtype of the model.

    Args:
        config: of the model.
        params: as of `transformer.init_params`.
        weights: "none", "fp8" or "int8": what the kernels of the layers are quantized to.
        stacked: whether the layers stay stacked.
        consume: deletes each parameter as soon as it was converted, so that little more than the
            largest (the two largest, where stacked) is there twice.

    Raises:
        UserError: `weights` is unknown.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights {weights!r} is unknown: choose one of {', '.join(WEIGHTS)}")
    with _mesh_of(params["embedding"]):
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
        return Served(embedding, layers, _whole(params["final_norm"]), head)


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
        # One parameter after the other is taken apart, and then those of one layer are joined.
        parts = {
            name: _finished(_unstack(stack), [stack] if consume else ())
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
    """What was made, when it is there; what it was made of is deleted."""
    for array in used:
        if not isinstance(array, jax.core.Tracer):
            jax.block_until_ready(made)
            array.delete()
    return made


def _mesh_of(array: jax.Array) -> AbstractContextManager[None]:
    """Within, logical axes are those of the mesh that the array is on."""
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
def _unstack(stack: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(stack[index] for index in range(len(stack)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fuse(config: ModelConfig, weights: str, stacked: bool, group: Layer) -> Layer:
    """The served arrays of one of `_GROUPS`, of one layer or of all."""
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
    if "query" in group:
        kernels = {
            name: jnp.moveaxis(kernel, 0, -1) for name, kernel in _joined(config, group).items()
        }
    elif "gate" in group:
        kernels = {"gate_up": jnp.stack([group["gate"].T, group["up"].T])}
    else:
        kernels = {name: kernel.reshape(-1, kernel.shape[-1]).T for name, kernel in group.items()}
    if dtype is None:
        return kernels
    return {name: quantize(kernel, dtype) for name, kernel in kernels.items()}


def _joined(config: ModelConfig, group: Layer, suffix: str = "") -> Layer:
    """Queries `[..., heads, head_dim]`, keys and values, as one array or as two."""
    query, key, value = (group[name + suffix] for name in ("query", "key", "value"))
    pair = jnp.stack([key, value], axis=-2)
    if not config.shard_kv_heads:
        return {"query" + suffix: query, "key_value" + suffix: pair}
    query = query.reshape(*key.shape[:-1], -1, config.head_dim)
    return {"qkv" + suffix: jnp.concatenate([query, pair], axis=-2)}
