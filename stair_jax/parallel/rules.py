"""Which axis of the mesh each logical axis of parameters and activations is split over."""

from typing import Any

import flax.linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("activation_embed", None),
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_dim", None),
    ("mlp", "tensor"),
    ("layers", None),
)


def shardings(logical_axes: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree of PartitionSpecs of logical axis names."""
    return nn.logical_to_mesh_sharding(logical_axes, mesh, RULES)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays `[A, rows, T]`, the rows split over the data axes."""
    return NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))
