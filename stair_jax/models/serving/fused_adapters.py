"""Low-rank adapters (`models/lora.py`) beside fused kernels: those of several models over one base.

Adapters of kernels that are joined to one, such as `qkv`, are joined too: their ranks stand one
behind the other, and each writes into the outputs of its own kernel, the rest of its B being zeros.
So a kernel NAME [..., K] with adapters of N models has two arrays more, in `config.dtype`:

    NAME_lora_a [N, R, K]    NAME_lora_b [N, R, ...]

R is the sum of the ranks of the parts, the largest of all models, and B holds the scale. Ranks,
which are few, are never the last axis, which a TPU pads to 128.

A row of activations says which model it is of: 0 is the base, n the n-th with adapters. One product
with all A, zeros in place of what is of other models, and one product with all B, which sums over
models and ranks alike: N times the arithmetic of one adapter, which is little for a few, without a
gather of adapters for each row, and without an order of the rows. What is added to a row of the
base is exactly zero. Rows of embedding and head of their own are in `token_rows.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import ROWS, TABLES, A, B, Lora, own_rows, split
from stair_jax.models.quantization import matmul
from stair_jax.models.serving.fused_params import (
    FusedParams,
    Layer,
    fuse_params,
    join_kernels,
    layer_axes,
    mesh_of,
    unstack,
)
from stair_jax.models.serving.token_rows import TokenRows, make_token_rows
from stair_jax.models.transformer import Params

# The kernels that each fused one is made of, in the order of their ranks.
_PARTS = {
    "qkv": ("query", "key", "value"),
    "query": ("query",),
    "key_value": ("key", "value"),
    "out": ("out",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}
# The kernels that are joined to one or two.
_GROUPS = (("query", "key", "value"), ("out",), ("gate", "up"), ("down",))


class Adapter(NamedTuple):
    """The adapters of one model.

    Attributes:
        lora: which there are.
        params: as `lora.split` returns them.
    """

    lora: Lora
    params: Params


def fuse_model(
    config: ModelConfig,
    params: Params,
    adapters: Sequence[Adapter] = (),
    *,
    weights: str = "none",
    stacked: bool,
    consume: bool = False,
) -> FusedParams:
    """As `fuse_params`, with the adapters of models over the same base.

    Args:
        config: the model config.
        params: as of `transformer.init_params`. If there are adapters in them (`config.lora`),
            these are the first.
        adapters: of more models, which stay as they are.
        weights: see `fuse_params`; adapters are not quantized.
        stacked: whether the layers stay stacked.
        consume: whether to delete the kernels of `params`, see there.
    """
    if config.lora is not None:
        params, own = split(params)
        adapters = (Adapter(config.lora, own), *adapters)
    adapters = [_with_all_rows(adapter, params) for adapter in adapters]
    fused = fuse_params(config, params, weights=weights, stacked=stacked, consume=consume)
    if not adapters:
        return fused
    loras = tuple(adapter.lora for adapter in adapters)
    # Of the kernels that were consumed, the norm is left.
    with mesh_of(params["final_norm"]):
        made, rows = _fuse(config, loras, [adapter.params for adapter in adapters])
        if not isinstance(fused.layers, tuple):
            return fused._replace(layers=fused.layers | made, rows=rows)
        apart = {name: unstack(stack) for name, stack in made.items()}
    layers = (
        layer | {name: parts[index] for name, parts in apart.items()}
        for index, layer in enumerate(fused.layers)
    )
    return fused._replace(layers=tuple(layers), rows=rows)


def _with_all_rows(adapter: Adapter, base: Params) -> Adapter:
    """With rows of the base for the tokens of which only the other table has own ones."""
    missing = {
        name: base[name] for name in TABLES if name in base and name + ROWS not in adapter.params
    }
    ids = adapter.lora.token_ids
    rows = own_rows(missing, ids, adapter.lora.dtype) if ids and missing else {}
    return adapter._replace(params={**adapter.params, **rows})


def rows_of_adapters(fused: FusedParams, adapter: jax.Array, length: int) -> jax.Array:
    """Which adapters each row of a product uses.

    Args:
        fused: the parameters, with adapters.
        adapter: [B] int32, that of each sequence.
        length: T, tokens of a sequence, one behind the other.

    Returns:
        [B * T, N] bool, of which at most one in a row is set.
    """
    layers = fused.layers[-1] if isinstance(fused.layers, tuple) else fused.layers
    count = next(array for name, array in layers.items() if name.endswith(A)).shape[-3]
    own = adapter[:, None] == 1 + jnp.arange(count, dtype=jnp.int32)
    return jnp.repeat(own, length, axis=0)


def adapted(rows: jax.Array, a: jax.Array, b: jax.Array, own: jax.Array) -> jax.Array:
    """What the adapters of a kernel add to its product with rows.

    Args:
        rows: [M, K].
        a: [N, R, K].
        b: [N, R, ...].
        own: as `rows_of_adapters` returns it.

    Returns:
        [M, ...]; zeros for rows of the base.
    """
    low = jnp.where(own[..., None], matmul(rows, a), 0).reshape(len(rows), -1)
    return jnp.tensordot(low, b.reshape(-1, *b.shape[2:]), 1)


@partial(jax.jit, static_argnums=(0, 1))
def _fuse(
    config: ModelConfig, loras: tuple[Lora, ...], params: Sequence[Params]
) -> tuple[Layer, TokenRows | None]:
    """The adapters of N models: the arrays of all layers, stacked, and the rows of tokens."""
    made = jax.vmap(partial(_of_layer, config, loras))([each["layers"] for each in params])
    axes = {name: PartitionSpec("layers", *axes) for name, axes in layer_axes(config, made).items()}
    rows = make_token_rows(config, loras, params)
    whole = jax.tree.map(
        lambda array: nn.with_logical_constraint(array, (None,) * array.ndim), rows
    )
    return jax.tree.map(nn.with_logical_constraint, made, axes), whole


def _of_layer(config: ModelConfig, loras: Sequence[Lora], layers: Sequence[Layer]) -> Layer:
    parts: dict[str, list[jax.Array]] = {}
    for group in _GROUPS:
        for name in group:
            if not any(name in lora.targets for lora in loras):
                continue
            a, b = _padded(name, loras, layers)
            for fused, kernel in _fused_b(config, group, name, b).items():
                if name in _PARTS[fused]:
                    parts.setdefault(fused + A, []).append(a)
                    parts.setdefault(fused + B, []).append(kernel)
    return {name: jnp.concatenate(own, axis=1).astype(config.dtype) for name, own in parts.items()}


def _padded(
    name: str, loras: Sequence[Lora], layers: Sequence[Layer]
) -> tuple[jax.Array, jax.Array]:
    """The adapters of a kernel in N models, with zeros where a model has less or none.

    Returns:
        A [N, r, K], and B [N, r, *out] with the scale, in float32.
    """
    own = [index for index, lora in enumerate(loras) if name in lora.targets]
    rank = max(loras[index].rank for index in own)
    found = []
    for half in (A, B):
        made: dict[int, jax.Array] = {}
        for index in own:
            array = layers[index][name + half].astype(jnp.float32)
            if half == A:
                array = array.reshape(-1, array.shape[-1]).T
            else:
                array = array * loras[index].scale
            more = [(0, rank - len(array))] + [(0, 0)] * (array.ndim - 1)
            made[index] = jnp.pad(array, more)
        none = jnp.zeros_like(made[own[0]])
        found.append(jnp.stack([made.get(index, none) for index in range(len(loras))]))
    return found[0], found[1]


def _fused_b(config: ModelConfig, group: Sequence[str], name: str, b: jax.Array) -> Layer:
    """B [N, r, *out] of one kernel as that of the fused kernels: [N, r, ...], zeros elsewhere."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    outputs = {
        "query": (heads, config.head_dim),
        "key": (kv_heads, config.head_dim),
        "value": (kv_heads, config.head_dim),
        "gate": (config.intermediate_size,),
        "up": (config.intermediate_size,),
    }
    kernels = {
        other: b if other == name else jnp.zeros((*b.shape[:2], *outputs[other])) for other in group
    }
    fused = jax.vmap(partial(join_kernels, config))(kernels)
    return {kernel: jnp.moveaxis(array, -1, 1) for kernel, array in fused.items()}
