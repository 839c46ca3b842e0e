"""Which axis of the mesh each logical axis of parameters and activations is split over."""

from typing import Any

import flax.linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The axes that rows of a batch are split over: each device of them works on rows of its own.
BATCH_AXES = ("data", "fsdp")

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    # Parameters: split over `fsdp` to save memory, over `tensor` to share the work.
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("kv_heads_whole", None),  # of a model with too few of them, see `ModelConfig.shard_kv_heads`
    ("head_dim", None),
    ("mlp", "tensor"),
    ("layers", None),
    # Activations, slots of an engine and their pages.
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
    """NamedShardings for a tree of PartitionSpecs of logical axis names."""
    return nn.logical_to_mesh_sharding(logical_axes, mesh, RULES)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def rows_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays whose `axis` runs over the rows of a batch."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, BATCH_AXES))
