"""Parameters as host arrays, gathered from all devices and processes, one tensor at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from stair_jax.models.huggingface.tensor_names import Tensor
from stair_jax.models.lora import ROWS, A, B, Lora
from stair_jax.models.transformer import Params


def gathered(params: Params, tensor: Tensor, lora: Lora | None = None) -> np.ndarray:
    """A parameter (or one layer of it) as a host array; a kernel with its adapter, in float32.

    In a table, the rows of tokens that have their own are those.

    In a run of several processes all of them call this, in the same order.

    Args:
        params: as of `init_params`.
        tensor: says which parameter, and which layer of it.
        lora: the adapters among the parameters; None: there are none.
    """
    values = on_host(params, tensor)
    if lora is not None and tensor.parameter + ROWS in params:
        rows = on_host(params, tensor._replace(parameter=tensor.parameter + ROWS))
        values = values.astype(np.float32)
        values[list(lora.token_ids)] = rows
    if lora is None or tensor.layer is None or tensor.parameter not in lora.targets:
        return values
    a, b = (
        on_host(params, tensor._replace(parameter=tensor.parameter + half)).astype(np.float32)
        for half in (A, B)
    )
    product = a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1)
    return values.astype(np.float32) + np.float32(lora.scale) * product.reshape(values.shape)


def on_host(params: Params, tensor: Tensor) -> np.ndarray:
    """A parameter (or one layer of it) as a host array, gathered from all devices and processes.

    Copies on the device are fetched instead of the parameter itself: JAX caches the host copy of an
    array for as long as the array lives.
    """
    layer = tensor.layer
    array = params[tensor.parameter] if layer is None else params["layers"][tensor.parameter]
    if not isinstance(array, jax.Array):
        return np.asarray(array if layer is None else array[layer])
    # Other processes hold parts of the array: one layer of it is replicated, so that this one can
    # read it.
    if not array.is_fully_addressable:
        assert isinstance(array.sharding, NamedSharding)
        whole = NamedSharding(array.sharding.mesh, PartitionSpec())
        array = _replicated(array, layer, whole).addressable_data(0)
        layer = None
    # One of the replicas of each shard is enough.
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    values = np.empty(array.shape if layer is None else array.shape[1:], array.dtype)
    for shard in shards:
        index = shard.index if layer is None else shard.index[1:]
        values[index] = np.asarray(_part(shard.data, layer))
    return values


@jax.jit
def _part(array: jax.Array, layer: int | None) -> jax.Array:
    """One layer of a stacked array, or a copy of an array without layers."""
    if layer is None:
        return jnp.copy(array)
    return jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)


@partial(jax.jit, static_argnums=2)
def _replicated(array: jax.Array, layer: int | None, sharding: Sharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(_part(array, layer), sharding)
