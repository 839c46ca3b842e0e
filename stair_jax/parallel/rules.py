"""Sharding rules: logical axes of parameters and activations -> axes of the device mesh."""

from typing import Any

import flax.linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The mesh axes that split the rows of a batch.
BATCH_AXES = ("data", "fsdp")

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    # Parameters: `fsdp` splits them to save memory, `tensor` to divide the compute.
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("kv_heads_whole", None),  # too few heads for `tensor`, see `ModelConfig.shard_kv_heads`
    ("head_dim", None),
    ("mlp", "tensor"),
    ("layers", None),
    ("lora_rank", None),
    # Activations, and the slots and KV cache pages of an engine.
    ("batch", BATCH_AXES),
    ("length", None),
    ("activation_embed", None),
    ("activation_heads", "tensor"),
    ("activation_kv_heads", "tensor"),
    ("activation_kv_heads_whole", None),
    ("activation_mlp", "tensor"),
    ("activation_vocab", "tensor"),
)


def shardings(logical_axes: Any, mesh: Mesh) -> Any:
    """NamedShardings on `mesh` for a pytree of PartitionSpecs with logical axis names."""
    return nn.logical_to_mesh_sharding(logical_axes, mesh, RULES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding that replicates an array on every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec())


def rows_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of arrays whose axis number `axis` is the rows of a batch: over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, BATCH_AXES))
